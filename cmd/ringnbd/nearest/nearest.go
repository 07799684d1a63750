// Package nearest finds the word that may have been meant: a command, a flag, or a key of the
// configuration.
//
// Invariant: a proposal is one of the words that there are.
package nearest

import (
	"slices"
	"strings"
)

// Words returns the end of an error about a word that does not exist: the words that may have been
// meant, the nearest first, or nothing. A word may have been meant if it is one or two typing
// errors away, if it begins like what was typed, or if others call the same thing so.
func Words(typed string, words []string, others map[string][]string) string {
	plain := plainly(typed)
	bare := strings.TrimLeft(plain, "-")
	limit := 2
	if len(bare) < 5 {
		limit = 1
	}
	if len(bare) < 3 {
		limit = 0
	}
	var found, called []string
	for _, word := range words {
		switch w := plainly(word); {
		case len(bare) > 1 && (distance(plain, w) <= limit || strings.HasPrefix(w, plain) ||
			strings.ReplaceAll(w, "-", "") == strings.ReplaceAll(plain, "-", "")):
			found = append(found, word)
		case slices.Contains(others[word], bare), slices.Contains(others[word], strings.TrimLeft(
			typed, "-")):
			called = append(called, word)
		}
	}
	slices.SortStableFunc(found, func(a, b string) int {
		return distance(plain, plainly(a)) - distance(plain, plainly(b))
	})
	if found = append(found, called...); len(found) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(found[:min(len(found), 3)], " or ") + "?"
}

// plainly is a word without what people mix up: case, and the character between its parts.
func plainly(word string) string {
	return strings.NewReplacer("_", "-", " ", "-").Replace(strings.ToLower(word))
}

// distance is how many characters have to be added, dropped or changed to make one word another.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j := range y {
			change := diagonal
			if x[i] != y[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(y)]
}
