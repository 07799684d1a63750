// Which words are proposed for a word that does not exist.

package nearest

import "testing"

func TestWords(t *testing.T) {
	words := []string{"--listen", "--loops", "--read-only", "-l", "memory", "max-connections"}
	others := map[string][]string{"--listen": {"bind", "U"}, "memory": {"ram"}}
	for typed, want := range map[string]string{
		"--lisen":         "; did you mean --listen?",
		"--readonly":      "; did you mean --read-only?",
		"--Read_Only":     "; did you mean --read-only?",
		"--bind":          "; did you mean --listen?",
		"-U":              "; did you mean --listen?",
		"ram":             "; did you mean memory?",
		"maxconnections":  "; did you mean max-connections?",
		"max":             "; did you mean max-connections?",
		"memroy":          "; did you mean memory?",
		"x":               "",
		"":                "",
		"something":       "",
		"--l":             "",
		"--lo":            "; did you mean --loops?",
		"max_connection":  "; did you mean max-connections?",
		"--loop\x00evil ": "",
	} {
		if got := Words(typed, words, others); got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
}
