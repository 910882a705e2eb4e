package emulator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// An authority signs the certificates that the service shows. Name constraints
// keep it to the emulator's own hosts, so that trusting it opens nothing else.
type authority struct {
	file string
	cert *x509.Certificate
	key  crypto.Signer

	server tls.Certificate // what the service shows
	// What the certificate fault shows instead.
	expired, wrongHost, untrusted tls.Certificate
}

// openAuthority loads the authority of dir, or makes one, and issues the
// server certificates. Their validity follows the real clock whatever the
// service's clock says: the client checks them by its own.
func openAuthority(dir, domain string, hosts []string) (*authority, error) {
	a := &authority{file: filepath.Join(dir, "ca.pem")}
	keyFile := filepath.Join(dir, "ca-key.pem")
	_, err := os.Stat(a.file)
	if errors.Is(err, fs.ErrNotExist) {
		err = a.create(keyFile, domain, hosts)
	} else {
		err = a.load(keyFile)
	}
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if a.server, err = a.issue(hosts, now.Add(-time.Hour), now.AddDate(1, 0, 0)); err != nil {
		return nil, err
	}
	if err := a.covers(); err != nil {
		return nil, err
	}
	if a.expired, err = a.issue(hosts, now.Add(-48*time.Hour), now.Add(-24*time.Hour)); err != nil {
		return nil, err
	}
	if a.wrongHost, err = a.issue([]string{"elsewhere." + domain}, now.Add(-time.Hour), now.AddDate(1, 0, 0)); err != nil {
		return nil, err
	}
	stranger := &authority{}
	if err := stranger.generate(domain, hosts); err != nil {
		return nil, err
	}
	a.untrusted, err = stranger.issue(hosts, now.Add(-time.Hour), now.AddDate(1, 0, 0))
	return a, err
}

func (a *authority) load(keyFile string) error {
	certDER, err := readPEM(a.file, "CERTIFICATE")
	if err != nil {
		return err
	}
	keyDER, err := readPEM(keyFile, "PRIVATE KEY")
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(certDER); err != nil {
		return fmt.Errorf("read authority: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return fmt.Errorf("read authority: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return fmt.Errorf("read authority: a %T cannot sign", key)
	}
	a.key = signer
	return nil
}

func (a *authority) create(keyFile, domain string, hosts []string) error {
	if err := a.generate(domain, hosts); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	if err := writeFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	if err := writeFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o644); err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	return nil
}

func (a *authority) generate(domain string, hosts []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	names, addresses := split(hosts)
	template := &x509.Certificate{
		Subject:                     pkix.Name{CommonName: "Workspace emulator for " + domain},
		NotBefore:                   time.Now().Add(-72 * time.Hour),
		NotAfter:                    time.Now().AddDate(10, 0, 0),
		KeyUsage:                    x509.KeyUsageCertSign,
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{domain},
	}
	for _, name := range names {
		if name[0] != '*' {
			template.PermittedDNSDomains = append(template.PermittedDNSDomains, name)
		}
	}
	for _, ip := range addresses {
		template.PermittedIPRanges = append(template.PermittedIPRanges,
			&net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))})
	}
	a.key = key
	a.cert, err = sign(template, template, key.Public(), key)
	return err
}

// issue makes a certificate for hosts with a key of its own.
func (a *authority) issue(hosts []string, from, until time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make server certificate: %w", err)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Workspace emulator"},
		NotBefore:   from,
		NotAfter:    until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	template.DNSNames, template.IPAddresses = split(hosts)
	cert, err := sign(template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

// covers makes sure that the authority, which may come from an earlier run,
// is allowed to speak for the hosts of this one.
func (a *authority) covers() error {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	if _, err := a.server.Leaf.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		return fmt.Errorf("use authority %s: %w; use another folder for other hosts", a.file, err)
	}
	return nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// split tells names from addresses.
func split(hosts []string) (names []string, addresses []net.IP) {
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip == nil {
			names = append(names, host)
		} else if v4 := ip.To4(); v4 != nil {
			addresses = append(addresses, v4)
		} else {
			addresses = append(addresses, ip)
		}
	}
	return names, addresses
}

func readPEM(file, kind string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("read authority: %s holds no %s", file, kind)
	}
	return block.Bytes, nil
}

// writeFile replaces file in one step.
func writeFile(file string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// tlsConfig asks for a client certificate and leaves its judgement to the
// endpoints. HTTP/1.1 is all that is offered, as onboarding demands. Without
// session tickets every connection sees the certificate that a fault shows.
func (e *Emulator) tlsConfig() *tls.Config {
	config := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		ClientAuth:             tls.RequestClientCert,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
	}
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		p := place{endpoint: "tls"}
		if role, ok := e.hosts[hello.ServerName]; ok {
			p.workspace = role.workspace.id
		}
		f, ok := e.faults.strike(p, Fault.atHandshake)
		if !ok {
			return &e.authority.server, nil
		}
		e.changed.raise()
		switch f.Certificate {
		case "expired":
			return &e.authority.expired, nil
		case "wrong-host":
			return &e.authority.wrongHost, nil
		case "untrusted":
			return &e.authority.untrusted, nil
		default:
			return nil, fmt.Errorf("fault %d refuses the handshake", f.ID)
		}
	}
	return config
}
