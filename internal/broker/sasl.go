package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/auth"
)

const (
	keySASLHandshake    = 17
	keySASLAuthenticate = 36
	// failureDelay slows down those who guess passwords (connection.failed.authentication.delay.ms).
	failureDelay = 100 * time.Millisecond
)

// localUser is the principal of clients within the process. They may do everything: they could as well call Close.
const localUser = "User:moldau"

// identity is who the client of a connection is. Only the connection's reader touches it.
type identity struct {
	principal string
	known     bool // false: only what leads to authentication is taken
	mechanism auth.Mechanism
	exchange  auth.Exchange // under way; nil: none
	expires   time.Time     // zero: never
}

// identify starts a connection: TLS, and who the client is if that is known without SASL.
func (c *conn) identify() error {
	l := c.listener
	c.id = identity{principal: auth.Anonymous, known: true}
	if l == nil {
		c.id.principal = localUser
		return nil
	}
	if l.tls != nil {
		tc := tls.Server(c.nc, l.tls)
		ctx, cancel := context.WithTimeout(c.ctx, handshakeTimeout)
		defer cancel()
		if err := tc.HandshakeContext(ctx); err != nil {
			linger(c.nc)
			return err
		}
		c.nc = tc
		if certs := tc.ConnectionState().PeerCertificates; len(certs) > 0 {
			var err error
			if c.id.principal, err = l.names.Principal(certs[0]); err != nil {
				return err
			}
		}
	}
	if len(l.SASL) > 0 {
		c.id = identity{}
	}
	return nil
}

// mayAsk says whether a client may send a request in its state of authentication.
func (c *conn) mayAsk(key int16, now time.Time) bool {
	switch key {
	case keySASLHandshake, keySASLAuthenticate:
		return true
	case keyApiVersions:
		return c.id.exchange == nil
	}
	return c.id.known && (c.id.expires.IsZero() || now.Before(c.id.expires))
}

func (b *Broker) saslHandshake(r *request, q *kmsg.SASLHandshakeRequest) reply {
	resp := response[*kmsg.SASLHandshakeResponse](q)
	l := r.conn.listener
	if l == nil || len(l.SASL) == 0 {
		resp.ErrorCode = kerr.IllegalSaslState.Code
		return answer(resp)
	}
	for _, m := range l.SASL {
		resp.SupportedMechanisms = append(resp.SupportedMechanisms, string(m))
	}
	id, m := &r.conn.id, auth.Mechanism(q.Mechanism)
	switch {
	case !slices.Contains(l.SASL, m):
		resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
	case id.known && id.mechanism != m:
		// Who authenticates again stays with the mechanism.
		resp.ErrorCode = kerr.IllegalSaslState.Code
	default:
		id.mechanism = m
		id.exchange, _ = b.security.authenticator.Begin(m, b.cfg.Now())
	}
	return answer(resp)
}

func (b *Broker) saslAuthenticate(r *request, q *kmsg.SASLAuthenticateRequest) reply {
	resp := response[*kmsg.SASLAuthenticateResponse](q)
	id := &r.conn.id
	if id.exchange == nil {
		resp.ErrorCode, resp.ErrorMessage = kerr.IllegalSaslState.Code, ptr("a handshake comes first")
		return answer(resp)
	}
	out, proved, err := id.exchange.Step(q.SASLAuthBytes)
	if err == nil && proved != nil && id.known && proved.Principal != id.principal {
		err = errors.New(id.principal + " authenticates again as " + proved.Principal)
	}
	if err != nil {
		b.slog.Warn("authentication failed", "client", r.conn.host, "mechanism", string(id.mechanism), "err", err)
		b.metrics.authFailures.Add(1)
		resp.ErrorCode, resp.ErrorMessage = kerr.SaslAuthenticationFailed.Code, ptr("Authentication failed with SASL mechanism "+string(id.mechanism))
		id.exchange = nil
		return reply{last: true, wait: func(ctx context.Context) kmsg.Response {
			select {
			case <-time.After(failureDelay):
				return resp
			case <-ctx.Done():
				return nil
			}
		}}
	}
	resp.SASLAuthBytes = out
	if resp.SASLAuthBytes == nil {
		resp.SASLAuthBytes = []byte{}
	}
	if proved == nil {
		return answer(resp)
	}
	now := b.cfg.Now()
	*id = identity{principal: proved.Principal, known: true, mechanism: id.mechanism, expires: proved.Expires}
	if limit := now.Add(b.cfg.MaxReauth); b.cfg.MaxReauth > 0 && (id.expires.IsZero() || limit.Before(id.expires)) {
		id.expires = limit
	}
	if !id.expires.IsZero() {
		resp.SessionLifetimeMillis = max(0, id.expires.Sub(now).Milliseconds())
	}
	return answer(resp)
}
