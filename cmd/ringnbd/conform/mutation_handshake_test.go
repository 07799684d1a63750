// Every flaw of the server in memory is found by the check that is there for it.
//
// Invariant: a check that no flaw makes fail proves nothing. The faults of real servers exercise
// the checks that neither this list nor that of the transmission names.

package conform

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is the time of a check against the server in memory; a flaw that shows as a stall takes
// that long.
const patience = 4 * time.Second

// runFake runs checks against the server in memory, with a flaw.
func runFake(t *testing.T, flaw string, checks []Check, patience time.Duration) *Report {
	t.Helper()
	report, err := Run(context.Background(),
		Config{Target: fakeTarget(t, flaw), Writable: true, Checks: checks, Timeout: patience})
	if err != nil {
		t.Fatalf("%q: %v", flaw, err)
	}
	return report
}

func TestRightServer(t *testing.T) {
	t.Parallel() // together with other tests that wait
	report := runFake(t, "", Checks(), 10*patience)
	for _, r := range report.Results {
		if r.Verdict == Fail {
			t.Errorf("%s %s: %s", r.ID, r.Title, r.Detail)
		}
	}
	if report.Counts[Pass] < 100 {
		t.Errorf("only %d checks pass: %s", report.Counts[Pass], report.Summary())
	}
	if len(report.Profile.Problems) > 0 {
		t.Errorf("the profile could not be taken: %q", report.Profile.Problems)
	}
}

// flaws says which checks must fail for each flaw. A verdict after an equals sign is expected
// instead of fail, and a word after a colon must be in the detail.
var flaws = map[string]string{
	"banner bit":                  "H-02:bits",
	"banner byte":                 "H-01",
	"client flags":                "H-03a H-03b",
	"no zeroes":                   "H-05 E-01b",
	"dirty zeroes":                "H-05:zeroes E-01b",
	"option magic":                "H-09",
	"unknown option":              "H-10a H-11",
	"does not skip":               "H-10b H-10c P-01 TL-03",
	"echo":                        "H-11:names",
	"two ACKs":                    "H-12",
	"text with NUL":               "T-02:NUL H-13:NUL",
	"hangs up":                    "H-15 H-12",
	"name to the NUL":             "T-04a=differs",
	"unknown EXPORT_NAME":         "E-02:nothing",
	"long name":                   "E-05a",
	"DF":                          "E-08:DF G-18b:DF",
	"silent ABORT":                "A-01",
	"listed twice":                "LI-01a:twice",
	"listed only":                 "LI-02:ghost",
	"long SERVER":                 "LI-01a:longer",
	"no LIST":                     "LI-08",
	"PEEK_EXPORT":                 "P-01",
	"STARTTLS":                    "TL-02:TLS_REQD TL-03",
	"malformed INFO":              "G-01a G-01b G-01c",
	"unknown GO":                  "G-02",
	"no GO":                       "G-18a:UNSUP",
	"no INFO_EXPORT":              "G-03",
	"padding":                     "G-04",
	"size of INFO":                "G-06:size",
	"size of GO":                  "G-19:size",
	"unknown information":         "G-07",
	"another name":                "G-10:nobody",
	"name once":                   "G-10=pass",
	"another description":         "G-11",
	"long BLOCK_SIZE":             "G-12:14",
	"BLOCK_SIZE_REQD":             "G-13",
	"unstructured":                "SR-01 RP-02",
	"structured all the same":     "SR-03:negotiated",
	"malformed queries":           "MC-02a",
	"no colon":                    "MC-03",
	"unknown namespace":           "MC-04:INVALID",
	"empty list":                  "MC-05",
	"wildcard":                    "MC-10",
	"context twice":               "MC-12",
	"keeps contexts":              "MC-13a MC-13b",
	"contexts of unknown exports": "MC-14",
	"contexts of another":         "MC-15",
	"context without colon":       "MC-18",
	"request magic":               "RQ-01",
	"cookie":                      "RQ-02 TL-01",
	"data with an error":          "CR-01",
	"errno":                       "ER-01:121 RQ-04:121",
	"simple READ":                 "RP-02:simple",
	"simple errors":               "RP-02:simple",
	"chunk flags":                 "RP-04:flags",
	"NONE":                        "RP-05",
	"any length":                  "ER-03=pass",
	"outside":                     "RP-06:inside",
	"twice":                       "RP-06:overlap",
	"empty hole":                  "RP-07",
	"short READ":                  "RP-08",
	"error 0":                     "RP-09",
	"message length":              "RP-09",
	"listed by namespace":         "MC-05=pass MC-18=pass",
	"contexts by policy":          "MC-14=pass",
	"unlisted": "MC-01=differs:UNSUP MC-05=differs:UNSUP MC-06=skip CB-02=pass " +
		"CB-08a=pass MC-11=pass MC-12=pass",
	"unlisted, and zero": "CB-08a",
	"listed nonsense":    "CB-08a=pass MC-05:belong",
	"LIST without end":   "LI-01a:end",
	"status without end": "CB-03:second",
	"chunk type":         "RP-17",
	"DF in pieces":       "CR-02",
	"forgets writes":     "CW-01a T-05d",
	"half zeroes":        "CZ-01",
	"context id":         "CB-02",
	"status twice":       "CB-02",
	"empty extent":       "CB-03",
	"REQ_ONE":            "CB-04",
	"zero status":        "CB-08a",
}

func TestFlaws(t *testing.T) {
	all := Checks()
	for flaw, text := range flaws {
		t.Run(flaw, func(t *testing.T) {
			t.Parallel()
			var ids, verdicts, words []string
			for _, field := range strings.Fields(text) {
				field, word, _ := strings.Cut(field, ":")
				id, verdict, named := strings.Cut(field, "=")
				if !named {
					verdict = string(Fail)
				}
				ids, verdicts, words = append(ids, id), append(verdicts, verdict), append(words,
					word)
			}
			checks, idle := Only(all, ids)
			if idle != "" {
				t.Fatalf("there is no check %s", idle)
			}
			missed := func(report *Report) (missed []string) {
				for i, id := range ids {
					at := slices.IndexFunc(report.Results, func(r Result) bool {
						return r.ID == id
					})
					if at < 0 {
						t.Fatalf("%s is not the ID of a check", id)
					}
					if r := report.Results[at]; string(r.Verdict) != verdicts[i] ||
						!strings.Contains(r.Detail, words[i]) {
						missed = append(missed,
							fmt.Sprintf("%s: %s (%s), not %s that says %q",
								id, r.Verdict, r.Detail, verdicts[i], words[i]))
					}
				}
				return missed
			}
			// On a busy machine the time may be over before the flaw has shown; try with more time.
			if missed(runFake(t, flaw, checks, patience)) != nil {
				for _, m := range missed(runFake(t, flaw, checks, 15*patience)) {
					t.Error(m)
				}
			}
		})
	}
}
