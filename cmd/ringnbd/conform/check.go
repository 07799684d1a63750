// What a check is and what can come out of it.
//
// Invariant: a Check is data; nothing but the suite runs one, and its verdict comes from the trial
// that it was given and from nowhere else.

package conform

import (
	"path"
	"strings"
	"time"
)

// Level is how much the protocol insists on a rule.
type Level string

// The words of the protocol, and QUALITY: what the protocol leaves open and a user notices.
const (
	must    Level = "MUST"
	should  Level = "SHOULD"
	may     Level = "MAY"
	quality Level = "QUALITY"
)

// Verdict is the outcome of a check.
type Verdict string

// The verdicts. Differs is a deviation that the protocol allows, reported with what was seen.
const (
	Pass    Verdict = "pass"
	Fail    Verdict = "fail"
	Skip    Verdict = "skip"
	Differs Verdict = "differs"
)

// Check is a rule of the protocol, or a part of it, as something that can be seen on the wire.
type Check struct {
	ID    string // the rule's ID, such as "H-03", and a letter if the rule takes several checks
	Level Level
	Needs []need // what the server must offer for the check to mean something
	Title string // what is checked, in one line
	Why   string // what goes wrong in a server that fails, in one line
	Run   func(*trial)
}

// rule returns the rule that the check is about: its ID without the letter.
func (c *Check) rule() string { return strings.TrimRight(c.ID, "abcdefghijklmnopqrstuvwxyz") }

// matches reports whether a pattern of --only picks the check: an ID, a rule, a group (the letters
// before the dash), or any of them with * and ?.
func (c *Check) matches(pattern string) bool {
	for _, name := range []string{c.ID, c.rule(), c.ID[:strings.IndexByte(c.ID, '-')]} {
		if strings.EqualFold(name, pattern) {
			return true
		}
	}
	ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(c.ID))
	return ok && err == nil
}

// Result is the outcome of one check.
type Result struct {
	ID      string        `json:"id"`
	Level   Level         `json:"level"`
	Title   string        `json:"title"`
	Why     string        `json:"why"`
	Verdict Verdict       `json:"verdict"`
	Detail  string        `json:"detail,omitempty"` // what was seen; the reason of a skip
	Took    time.Duration `json:"took_ns"`
}

// need is something that a check takes for granted; on a server without it the check is skipped.
type need struct {
	name string // finishes the sentence "needs ..."
	met  func(*Profile) bool
}

// without returns the opposite need: the check is about servers that do not have it.
func without(n need) need {
	return need{"a server without " + n.name, func(p *Profile) bool { return !n.met(p) }}
}
