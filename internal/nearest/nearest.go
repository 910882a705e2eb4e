// Package nearest finds the name that somebody may have meant.
package nearest

import "strings"

// Name returns the one of the known names that differs least from name, and by
// how many bytes; letter case does not count. Without known names it returns "".
func Name(name string, known []string) (found string, differs int) {
	for i, k := range known {
		if n := distance(strings.ToLower(name), strings.ToLower(k)); i == 0 || n < differs {
			found, differs = k, n
		}
	}
	return found, differs
}

// distance is the Levenshtein distance: how many bytes must be put in, taken
// out or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
