package broker

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// mutual listens with TLS and demands certificates of an authority.
func mutual(ca *authority) func(*Config) {
	return func(c *Config) {
		c.Listeners = []Listener{{Address: "127.0.0.1:0", TLS: &TLS{Cert: ca.file("broker.pem"), Key: ca.file("broker.key"), ClientCA: ca.file("authority.pem")}}}
	}
}

// shaken connects with TLS 1.3 and a certificate, or none. The client's part of the handshake does not need the broker's consent.
func shaken(t *testing.T, addr string, ca *authority, certs []tls.Certificate) *tls.Conn {
	t.Helper()
	nc := tls.Client(tcp(t, addr).nc, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: "127.0.0.1", RootCAs: ca.client("").RootCAs,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if certs == nil {
				return new(tls.Certificate), nil
			}
			return &certs[0], nil
		},
	})
	if err := nc.Handshake(); err != nil {
		t.Fatal(err)
	}
	return nc
}

// Over TLS 1.3 a client has finished its handshake and sent requests when the broker refuses its certificate. It hears why, and not
// only that the connection is gone.
func TestRefusedCertificateIsHeardOf(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	ours.issue("broker")
	others.issue("stranger")
	b := start(t, mutual(ours))
	for name, certs := range map[string][]tls.Certificate{"none": nil, "of another authority": others.client("stranger").Certificates} {
		for round := range 100 {
			nc := shaken(t, b.Addr(), ours, certs)
			for range 20 {
				if _, err := nc.Write(make([]byte, 1000)); err != nil {
					t.Fatalf("%s, round %d: a write fails: %v", name, round, err)
				}
			}
			if _, err := io.ReadAll(nc); err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
				t.Fatalf("%s, round %d: the client hears %v", name, round, err)
			}
			nc.NetConn().Close()
		}
	}
}

// A client that was refused and stays, silent or sending for ever, keeps its place for no longer than it takes to hear why.
func TestRefusedClientIsNotWaitedFor(t *testing.T) {
	ca := newAuthority(t)
	ca.issue("broker")
	ca.issue("client")
	b := start(t, mutual(ca), func(c *Config) { c.MaxConnections = 1 })
	good := ca.client("client").Certificates
	for name, stays := range map[string]func(nc net.Conn){
		"silent": func(net.Conn) {},
		"sending": func(nc net.Conn) {
			for {
				if _, err := nc.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		},
	} {
		began := time.Now()
		refused := shaken(t, b.Addr(), ca, nil)
		stays(refused.NetConn())
		next := shaken(t, b.Addr(), ca, good)
		if r := (&raw{t: t, nc: next, format: kmsg.NewRequestFormatter()}); !r.served() {
			t.Errorf("%s: the next client is not served", name)
		}
		if waited := time.Since(began); waited > handshakeTimeout/2 {
			t.Errorf("%s: the next client waits %v", name, waited)
		}
		next.Close()
	}
}
