// The word that may have been meant.
//
// Invariant: a proposal is one of the words that there are.

package config

import (
	"slices"
	"strings"
)

// otherWords are names that other programs, and people, have for our keys.
var otherWords = map[string][]string{
	"path":            {"file", "device", "image", "exportname", "filename", "node-name", "dev"},
	"description":     {"comment", "desc", "name", "title"},
	"read-only":       {"readonly", "ro", "writable", "write"},
	"create":          {"size", "filesize"},
	"address":         {"listen", "addr", "bind", "host", "port", "listenaddr", "ip", "socket"},
	"export":          {"exports", "disk", "disks", "share"},
	"listen":          {"listener", "listeners", "address", "port", "bind"},
	"max-connections": {"connections", "maxconnections", "max-clients"},
	"loops":           {"threads", "workers"},
	"include":         {"includedir", "includes", "import"},
	"top":             {"file", "cow", "path", "upper"},
	"origin":          {"base", "backing", "lower", "path"},
	"memory":          {"mem", "ram", "buffers"},
	"log":             {"logging", "logs"},
	"socket":          {"path", "address", "listen"},
	"direct":          {"cache", "odirect", "o-direct"},
}

// didYouMean is the end of an error about a word: the words that may have been meant, or nothing.
func didYouMean(typed string, words []string) string {
	limit := 2
	if len(typed) < 5 {
		limit = 1
	}
	if len(typed) < 3 {
		limit = 0
	}
	var found []string
	plain := strings.NewReplacer("_", "-", " ", "-").Replace(strings.ToLower(typed))
	for _, word := range words {
		if d := distance(plain, word); d <= limit || len(typed) > 1 &&
			strings.HasPrefix(word, plain) || slices.Contains(otherWords[word], plain) ||
			strings.ReplaceAll(word, "-", "") == strings.ReplaceAll(plain, "-", "") {
			found = append(found, word)
		}
	}
	slices.SortStableFunc(found, func(a, b string) int {
		return distance(plain, a) - distance(plain, b)
	})
	if len(found) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(found[:min(len(found), 3)], " or ") + "?"
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
