package workspace

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/openloganalytics/agent/internal/atomicfile"
)

// Files in the identity folder, all for their owner alone.
const (
	// identityFile holds certificate and private key, so that the two can
	// never disagree; the agent GUID is in the certificate's subject.
	identityFile = "identity.pem"
	// registrationFile is what the workspace answered to the onboarding.
	registrationFile = "state.json"
)

const (
	// certificateLife is how long the workspace lets a certificate live.
	certificateLife = 365 * 24 * time.Hour
	// forgivenSkew is how far this machine's clock may be ahead without the
	// service thinking that the certificate comes from the future.
	forgivenSkew = time.Hour
	// renewBefore is how long before its end a certificate wants a successor.
	renewBefore  = 45 * 24 * time.Hour
	maxStateFile = 64 << 10
)

// An identity is this machine in one workspace: a GUID, and the certificate
// and key that prove it.
type identity struct {
	guid        string
	certificate tls.Certificate // Leaf is set
}

func (id *identity) leaf() *x509.Certificate { return id.certificate.Leaf }

// thumbprint is the SHA-256 of the certificate, in hex.
func (id *identity) thumbprint() string {
	sum := sha256.Sum256(id.leaf().Raw)
	return hex.EncodeToString(sum[:])
}

// fits reports whether the certificate's time has begun at t and does not end
// soon.
func (id *identity) fits(t time.Time) bool {
	return !t.Before(id.leaf().NotBefore) && id.leaf().NotAfter.Sub(t) > renewBefore
}

// show shows the certificate to a server, for tls.Config.
func (id *identity) show(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return &id.certificate, nil
}

// newIdentity makes a key and a self-signed certificate for agentGUID, as the
// OMS agent's maintenance script does: the workspace's and the agent's ids are
// two common names of one subject, no extension is critical.
func newIdentity(workspaceID, agentGUID string, now time.Time) (*identity, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	return selfSigned(workspaceID, agentGUID, key, now)
}

func selfSigned(workspaceID, agentGUID string, key *rsa.PrivateKey, now time.Time) (*identity, error) {
	template, err := certificateTemplate(workspaceID, agentGUID, &key.PublicKey, now)
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	return &identity{agentGUID, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, nil
}

func certificateTemplate(workspaceID, agentGUID string, public *rsa.PublicKey, now time.Time) (*x509.Certificate, error) {
	// pkix.Name can hold one common name only.
	subject, err := asn1.Marshal(pkix.RDNSequence{
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: workspaceID}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: agentGUID}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "Linux Monitoring Agent"}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Microsoft"}},
	})
	if err != nil {
		return nil, err
	}
	// crypto/x509 would mark the basic constraints critical.
	constraints, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(65534))
	if err != nil {
		return nil, err
	}
	keyID := sha256.Sum256(x509.MarshalPKCS1PublicKey(public))
	notBefore := now.UTC().Add(-forgivenSkew)
	return &x509.Certificate{
		SerialNumber:       serial.Add(serial, big.NewInt(1)), // 1 … 65534
		RawSubject:         subject,
		NotBefore:          notBefore,
		NotAfter:           notBefore.Add(certificateLife),
		SignatureAlgorithm: x509.SHA256WithRSA,
		SubjectKeyId:       keyID[:20],
		AuthorityKeyId:     keyID[:20],
		ExtraExtensions:    []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: constraints}},
	}, nil
}

// save writes the identity into dir.
func (id *identity) save(dir string) error {
	key, err := x509.MarshalPKCS8PrivateKey(id.certificate.PrivateKey)
	if err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.leaf().Raw})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := atomicfile.Write(filepath.Join(dir, identityFile), text, 0o600); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	return nil
}

// errCorrupt is the cause when a file in the identity folder makes no sense.
var errCorrupt = errors.New("its content makes no sense")

// loadIdentity reads the identity in dir. The cause of its error is
// fs.ErrNotExist, errCorrupt or that the file cannot be read now.
func loadIdentity(dir, workspaceID string) (*identity, error) {
	text, err := readState(dir, identityFile)
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	pair, err := tls.X509KeyPair(text, text) // also compares the key with the certificate
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", errCorrupt)
	}
	guid, ok := agentOf(pair.Leaf, workspaceID)
	if !ok {
		return nil, fmt.Errorf("load identity: %w: another workspace's certificate", errCorrupt)
	}
	return &identity{guid, pair}, nil
}

// agentOf returns the agent GUID in the subject of a certificate for the
// workspace.
func agentOf(c *x509.Certificate, workspaceID string) (guid string, ok bool) {
	var names []string
	for _, attribute := range c.Subject.Names {
		if name, isText := attribute.Value.(string); isText && attribute.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
			names = append(names, name)
		}
	}
	if len(names) != 2 || names[0] != workspaceID || uuid.Validate(names[1]) != nil {
		return "", false
	}
	return names[1], true
}

// A registration is what is known since the workspace took this machine in.
type registration struct {
	// Thumbprint and Domain say which certificate was registered where.
	Thumbprint  string    `json:"certificateThumbprint"`
	Domain      string    `json:"domain"`
	OnboardedAt time.Time `json:"onboardedAt"`
	// QueryInterval is how often the service wants the topology request, in
	// seconds; 0 when it did not say.
	QueryInterval     int    `json:"queryIntervalSeconds"`
	CertificateUpdate string `json:"certificateUpdateEndpoint,omitempty"`
	DSC               string `json:"dscEndpoint,omitempty"`
	NodeConfiguration string `json:"nodeConfigurationName,omitempty"`
}

func (r *registration) save(dir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("save registration: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, registrationFile), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("save registration: %w", err)
	}
	return nil
}

// loadRegistration reads the registration in dir, with errors as loadIdentity.
func loadRegistration(dir string) (*registration, error) {
	data, err := readState(dir, registrationFile)
	if err != nil {
		return nil, fmt.Errorf("load registration: %w", err)
	}
	r := new(registration)
	if err := json.Unmarshal(data, r); err != nil || r.Thumbprint == "" {
		return nil, fmt.Errorf("load registration: %w", errCorrupt)
	}
	return r, nil
}

// readState reads a file of the identity folder. What is no file of a
// sensible size is as corrupt as one without sense.
func readState(dir, name string) ([]byte, error) {
	data, err := atomicfile.ReadLimited(filepath.Join(dir, name), maxStateFile)
	if errors.Is(err, atomicfile.ErrNotRegular) || errors.Is(err, atomicfile.ErrTooLarge) {
		return nil, errors.Join(errCorrupt, err)
	}
	return data, err
}

// setAside renames a corrupt file, so that a new one can take its place and
// somebody can still look at it. It returns the new name.
func setAside(dir, name string, now time.Time) (string, error) {
	stem := name + ".corrupt-" + strings.ReplaceAll(now.UTC().Format("20060102T150405.000"), ".", "")
	if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, stem)); err != nil {
		return "", fmt.Errorf("set corrupt file aside: %w", err)
	}
	return stem, nil
}
