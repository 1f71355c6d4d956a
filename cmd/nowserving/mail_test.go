package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// certificate makes a certificate for 0.0.0.0, an address of this machine that is not
// taken for localhost, and writes it to a file.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4zero}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600))
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, file
}

// startTLSMail starts a mail server that accepts mail over TLS only: from the first byte, or
// by STARTTLS. What a client says and its mail go to mails.
func startTLSMail(t *testing.T, certificate tls.Certificate, starttls bool) (port int, mails chan string) {
	t.Helper()
	settings := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() }) //nolint:errcheck // the end of a test
	mails = make(chan string, 10)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go talk(conn, settings, starttls, mails)
		}
	}()
	address, ok := listener.Addr().(*net.TCPAddr)
	require.True(t, ok)
	return address.Port, mails
}

func talk(conn net.Conn, settings *tls.Config, starttls bool, mails chan<- string) {
	defer conn.Close() //nolint:errcheck // the client may have closed it
	secure := !starttls
	if secure {
		conn = tls.Server(conn, settings)
	}
	in := textproto.NewReader(bufio.NewReader(conn))
	say := func(line string) { _, _ = io.WriteString(conn, line+"\r\n") }
	say("220 mail ESMTP")
	heard := ""
	for {
		line, err := in.ReadLine()
		if err != nil {
			return
		}
		heard += line + "\n"
		switch verb, _, _ := strings.Cut(line, " "); {
		case verb == "EHLO" && secure:
			say("250-mail\r\n250 AUTH PLAIN")
		case verb == "EHLO":
			say("250-mail\r\n250 STARTTLS")
		case verb == "STARTTLS":
			say("220 go on")
			conn, secure = tls.Server(conn, settings), true
			in = textproto.NewReader(bufio.NewReader(conn))
		case !secure:
			say("530 5.7.0 encrypt first")
		case verb == "AUTH":
			say("235 welcome")
		case verb == "DATA":
			say("354 go on")
			text, err := in.ReadDotBytes()
			if err != nil {
				return
			}
			mails <- heard + string(text)
			say("250 ok")
		case verb == "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func TestMailGoesOnlyEncryptedAndToAServerWithATrustedCertificate(t *testing.T) {
	t.Parallel()
	trusted, file := certificate(t)
	stranger, _ := certificate(t)
	starting, started := startTLSMail(t, trusted, true)
	secure, secured := startTLSMail(t, trusted, false)
	unknown, refused := startTLSMail(t, stranger, true)
	for _, way := range []struct {
		name  string
		url   string
		mails chan string
	}{
		{"STARTTLS", fmt.Sprintf("smtp://clinic:secret@0.0.0.0:%d?from=a@clinic.example", starting), started},
		{"TLS", fmt.Sprintf("smtps://clinic:secret@0.0.0.0:%d?from=a@clinic.example", secure), secured},
		{"a stranger", fmt.Sprintf("smtp://clinic:secret@0.0.0.0:%d?from=a@clinic.example", unknown), refused},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			p := startProcess(t, append(environ(t, nodetest.Embedded), "SSL_CERT_FILE="+file, "NOWSERVING_SMTP_URL="+way.url))
			p.NewClinic().AskCode("email", "mona@example.com", "").OK()
			if way.mails != refused {
				select {
				case mail := <-way.mails:
					require.Contains(t, mail, "AUTH PLAIN")
					require.Contains(t, mail, "RCPT TO:<mona@example.com>")
					require.Contains(t, mail, nodetest.FixedCode)
				case <-time.After(nodetest.Patience):
					require.Fail(t, "no mail", p.Log.String())
				}
				return
			}
			require.Eventually(t, func() bool { return strings.Contains(p.Log.String(), "certificate") }, nodetest.Patience, 10*time.Millisecond)
			require.Empty(t, refused)
			require.NotContains(t, p.Log.String(), "mona@example.com")
		})
	}
}
