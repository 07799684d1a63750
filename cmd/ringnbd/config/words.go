// Names that other programs, and people, have for our keys.
//
// Invariant: what is proposed for a name is a key of the table that it stands in.

package config

import "ringnbd/cmd/ringnbd/nearest"

var otherWords = map[string][]string{
	"path":            {"file", "device", "image", "exportname", "filename", "node-name", "dev"},
	"description":     {"comment", "desc", "name", "title"},
	"read-only":       {"ro", "writable", "write"},
	"create":          {"size", "filesize"},
	"address":         {"listen", "addr", "bind", "host", "port", "listenaddr", "ip", "socket"},
	"export":          {"disk", "disks", "share"},
	"listen":          {"address", "port", "bind"},
	"max-connections": {"connections", "max-clients"},
	"loops":           {"threads", "workers"},
	"include":         {"includedir", "import"},
	"top":             {"file", "cow", "path", "upper"},
	"origin":          {"base", "backing", "lower", "path"},
	"memory":          {"mem", "ram", "buffers"},
	"log":             {"logging"},
	"socket":          {"path", "address", "listen"},
	"direct":          {"cache", "odirect", "o-direct"},
}

// didYouMean is the end of an error about a word: the words that may have been meant, or nothing.
func didYouMean(typed string, words []string) string {
	return nearest.Words(typed, words, otherWords)
}
