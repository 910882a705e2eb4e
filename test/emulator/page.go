package emulator

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
)

//go:embed page.html
var pageText []byte

// A page is the web page with the policy that lets exactly its own script and
// style run, and nothing that a row might bring along.
type page struct{ policy string }

func readPage() (page, error) {
	script, err := hashOf("script")
	if err != nil {
		return page{}, err
	}
	style, err := hashOf("style")
	if err != nil {
		return page{}, err
	}
	return page{fmt.Sprintf("default-src 'none'; script-src '%s'; style-src '%s'; connect-src 'self'; img-src data:; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", script, style)}, nil
}

// hashOf is the source expression of the page's only element of that name
// (CSP level 3, hash-source).
func hashOf(element string) (string, error) {
	_, rest, ok := bytes.Cut(pageText, []byte("<"+element+">"))
	inner, _, closed := bytes.Cut(rest, []byte("</"+element+">"))
	if !ok || !closed {
		return "", errors.New("read page: no " + element + " in it")
	}
	sum := sha256.Sum256(inner)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:]), nil
}

func (p page) serve(w http.ResponseWriter, _ *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", p.policy)
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("X-Frame-Options", "DENY")
	w.Write(pageText) //nolint:errcheck // a browser that went away needs no page
}
