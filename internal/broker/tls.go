package broker

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/moldau/moldau/internal/broker/auth"
)

const (
	// handshakeTimeout bounds what a client may take for TLS, authTimeout for saying who it is.
	handshakeTimeout = 10 * time.Second
	authTimeout      = 30 * time.Second
	// reloadAfter is how often files of certificates are looked at, when clients connect.
	reloadAfter = time.Second
	// lingerTime and lingerBytes bound what is still read of a client that has been refused.
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// TLS names the files of a listener's certificates, in PEM. They are read again when they change; connections there are keep
// what they began with.
type TLS struct {
	// Cert and Key are the broker's certificate, with intermediate ones behind it, and its key.
	Cert, Key string
	// ClientCA are the authorities whose certificates clients must show (ssl.truststore.location, ssl.client.auth=required);
	// "": none need be shown.
	ClientCA string
	// ClientOptional lets in clients without a certificate (ssl.client.auth=requested).
	ClientOptional bool
	// PrincipalRules name the user of a certificate (ssl.principal.mapping.rules); default: its distinguished name.
	PrincipalRules string
}

func (t *TLS) check(bad func(format string, args ...any)) {
	if t.Cert == "" || t.Key == "" {
		bad("TLS needs both a certificate and a key")
	}
	if t.ClientOptional && t.ClientCA == "" {
		bad("TLS: ClientOptional is set, but no ClientCA that certificates could be from")
	}
	if _, err := auth.ParseNames(t.PrincipalRules); err != nil {
		bad("TLS: %v", err)
	}
}

// config returns a configuration that follows the files.
func (t *TLS) config(now func() time.Time, logger *slog.Logger) (*tls.Config, error) {
	f := &tlsFiles{TLS: *t, now: now, slog: logger}
	if err := f.load(); err != nil {
		return nil, err
	}
	f.looked = now()
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.current(), nil },
	}, nil
}

// linger lets a client hear the alert that ended its handshake, before its connection is closed. Over TLS 1.3 it may have sent
// requests by then; a connection that is closed with bytes unread is reset, and the client may lose what it has not yet read. What
// comes is thrown away, until the client closes too or has had its time and bytes.
func linger(nc net.Conn) {
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || nc.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	io.CopyN(io.Discard, nc, lingerBytes)
}

// tlsFiles holds what was read from files last.
type tlsFiles struct {
	TLS
	now  func() time.Time
	slog *slog.Logger

	mu      sync.Mutex
	looked  time.Time
	content [3][]byte
	config  *tls.Config
}

// current returns the configuration for a client, read anew if the files have changed. Files that do not fit together,
// perhaps because they are being replaced, change nothing.
func (f *tlsFiles) current() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); now.Sub(f.looked) >= reloadAfter {
		f.looked = now
		if err := f.load(); err != nil {
			f.slog.Error("certificates cannot be read again, the ones before stay", "err", err)
		}
	}
	return f.config
}

func (f *tlsFiles) load() error {
	var content [3][]byte
	for i, name := range [...]string{f.Cert, f.Key, f.ClientCA} {
		if name == "" {
			continue
		}
		var err error
		if content[i], err = os.ReadFile(name); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
	}
	if f.config != nil && bytes.Equal(content[0], f.content[0]) && bytes.Equal(content[1], f.content[1]) && bytes.Equal(content[2], f.content[2]) {
		return nil
	}
	cert, err := tls.X509KeyPair(content[0], content[1])
	if err != nil {
		return fmt.Errorf("TLS: certificate %s and key %s: %w", f.Cert, f.Key, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if f.ClientCA != "" {
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(content[2]) {
			return fmt.Errorf("TLS: %w", errors.New("no certificate in "+f.ClientCA))
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if f.ClientOptional {
			config.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	if f.config != nil {
		f.slog.Info("certificates read again", "certificate", f.Cert)
	}
	f.config, f.content = config, content
	return nil
}
