//go:build linux

package delivery

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocsNameTestsThatExist keeps docs/delivery.md and docs/tailing.md from
// promising what nobody tests.
func TestDocsNameTestsThatExist(t *testing.T) {
	var tests []string
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			tests = append(tests, string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range []string{"../../docs/delivery.md", "../../docs/tailing.md"} {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile("`(Test\\w+)(…?)`").FindAllSubmatch(text, -1)
		if len(named) < 30 {
			t.Errorf("%s names only %d tests: this test looks for something else", doc, len(named))
		}
		for _, m := range named {
			name, more := string(m[1]), len(m[2]) > 0
			if !slices.ContainsFunc(tests, func(have string) bool { return have == name || more && strings.HasPrefix(have, name) }) {
				t.Errorf("%s names %s, which does not exist", doc, name)
			}
		}
	}
}
