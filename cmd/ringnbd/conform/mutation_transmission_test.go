// Every flaw of the flawed server is found by the checks for it, and nothing is found without a
// flaw.
//
// Invariant: a check that no flaw makes fail or differ proves nothing.

package conform

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

// runFlawed runs checks against the flawed server.
func runFlawed(t *testing.T, flaw string, checks []Check, timeout time.Duration) *Report {
	t.Helper()
	report, err := Run(context.Background(),
		Config{Target: flawedTarget(t, flaw), Writable: true, Checks: checks, Timeout: timeout})
	if err != nil {
		t.Fatalf("%q: %v", flaw, err)
	}
	return report
}

// TestFlawlessServers: right servers, each without some feature, are accused of nothing. A slow
// READ would differ, so the time of a check is long.
func TestFlawlessServers(t *testing.T) {
	for kind, minPass := range map[string]int{"": 135, "blocks": 130, "read-only without": 60,
		"poor": 50, "small": 75, "tiny": 75} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel() // with the other kinds only: the test itself is not parallel
			report := runFlawed(t, kind, Checks(), time.Minute)
			for _, r := range report.Results {
				if r.Verdict == Fail || r.Verdict == Differs {
					t.Errorf("%s %s: %s: %s", r.Verdict, r.ID, r.Title, r.Detail)
				}
			}
			if report.Counts[Pass] < minPass {
				t.Errorf("only %s", report.Summary())
				for _, r := range report.Results {
					if r.Verdict == Skip {
						t.Logf("skip %s: %s", r.ID, r.Detail)
					}
				}
			}
			if len(report.Profile.Problems) > 0 {
				t.Errorf("the profile could not be taken: %q", report.Profile.Problems)
			}
		})
	}
}

// transmissionFlaws says which checks must not pass for each flaw: ID=verdict, where fail is the
// default; a word after a colon must be in the detail.
var transmissionFlaws = map[string]string{
	// requests
	"any magic":                          "RQ-01",
	"answers garbage":                    "RQ-01=differs:answers",
	"cookies of 32 bits":                 "RQ-02:cookie",
	"any command":                        "RQ-04=differs CX-02=differs",
	"unknown commands hang up":           "RQ-04=differs:hangs",
	"drains unknown commands":            "RQ-04",
	"any flag":                           "RQ-05=differs RQ-06=differs CC-02",
	"bad flags undrained":                "RQ-05 RQ-06",
	"FUA on WRITE only":                  "RQ-07 K-08=pass",
	"hangs up on what is not advertised": "RQ-09=differs:hangs",
	"FUA unadvertised":                   "RQ-08=differs:success",
	"swapped":                            "RQ-10 RP-08 K-06",
	"wraps":                              "RQ-11:success",
	"drains nothing":                     "RQ-12 CW-02",
	"long hangs up": "RQ-13b=differs S-10=differs CR-04=differs " +
		"CT-03=differs S-11=differs",
	"nothing hangs up": "RQ-14=differs RQ-15=differs",
	"EIO for unknown":  "RQ-04=differs:EIO",
	// replies
	"answers twice":       "RP-01 K-01",
	"data with an error":  "RP-01 CR-01",
	"simple errors":       "RP-03=differs:simple CB-11=differs",
	"no text":             "RP-03=differs:text",
	"no DONE":             "RP-04:deadline",
	"early DONE":          "RP-04",
	"empty data":          "RP-05:9",
	"overlap":             "RP-06:overlaps RP-07:overlaps",
	"empty data chunk":    "RP-06:9",
	"data in every reply": "RP-17 RP-16=pass",
	"long hole":           "RP-07:inside",
	"hole of 16 bytes":    "RP-07:12",
	"gap":                 "RP-08:hold",
	"error, then data":    "RP-08:error",
	"two errors":          "RP-09=differs",
	"short error":         "RP-09",
	"errors outside":      "RP-10:inside",
	"errors with offsets": "RP-10=pass",
	"odd pieces":          "RP-15=differs:512 RP-15=differs:chunks",
	"large chunks":        "CR-04:maximum",
	"half the payload":    "RP-16 CR-06b CW-01b",
	"status in a READ":    "RP-17:asked",
	"unknown chunk":       "RP-17:exist",
	"another magic":       "RP-06:magic",
	// READ and WRITE
	"any range":                 "CR-01 CW-02:success CB-09a=differs CC-03b=differs",
	"EIO beyond":                "CR-01=differs:EIO CT-02a=differs CZ-06a=differs",
	"DF in pieces":              "CR-02:DF",
	"DF of 4 KiB":               "CR-03:EINVAL",
	"holes are full":            "CR-06a",
	"odd READ fails":            "CR-06c S-06:minimum",
	"EIO for misaligned":        "CR-05=differs CW-07=differs S-07=differs S-08=differs",
	"rounds down":               "CW-07 S-09 S-07",
	"loses the last byte":       "CW-01a CW-01c CW-05",
	"writes one more":           "CW-01a",
	"last block":                "CW-01c",
	"large":                     "CW-01d=pass",
	"offsets of 32 bits":        "CW-01d:GiB",
	"writes what fits":          "CW-02 RQ-12",
	"EIO for read-only":         "CW-03=differs CT-02b=differs CZ-06b=differs",
	"writes all the same":       "CW-03 CW-04",
	"read-only hangs up":        "CW-03=differs:hangs CT-02b=differs:hangs CW-04=pass",
	"read-only":                 "TF-02b=differs",
	"torn WRITE":                "CW-09=differs:half",
	"forgets FUA":               "CW-05 TF-08",
	"FLUSH fails":               "CF-01 TF-02a CF-03b",
	"FLUSH of a range hangs up": "CF-02=differs",
	// TRIM, WRITE_ZEROES, CACHE
	"TRIM outward":                      "CT-01 MO-08",
	"TRIM unsupported":                  "CT-05:ENOTSUP",
	"zeroes inward":                     "CZ-09",
	"zeroes outward":                    "CZ-09",
	"NO_HOLE fails":                     "CZ-02a",
	"FAST_ZERO fails":                   "CZ-03",
	"FAST_ZERO destroys":                "CZ-03=differs:after",
	"zeroes unsupported":                "CZ-04 CZ-01",
	"zeroes of 4 MiB":                   "CZ-07 CZ-03:zero XH-10a:zero S-11:zero",
	"zeroes unsupported, FAST_ZERO too": "CZ-04=differs:ENOTSUP",
	"CACHE changes":                     "CC-01",
	// BLOCK_STATUS
	"status of nothing":         "CB-01a",
	"EIO for no context":        "CB-01a=differs CB-01b=differs",
	"first context only":        "CB-02:CB-02",
	"empty extent":              "CB-03:CB-03",
	"odd status length":         "CB-03:CB-03",
	"REQ_ONE is ignored":        "CB-04:CB-04",
	"REQ_ONE is long":           "CB-04:CB-04",
	"extents after the request": "CB-05:CB-05",
	"extent beyond the end":     "CB-05:end",
	"unmerged":                  "CB-07=differs:same",
	"odd extents":               "CB-07=differs:multiple",
	"all zero":                  "CB-08a",
	"stale status":              "CB-08b CB-08c",
	"HOLE after NO_HOLE":        "CB-08d=differs",
	"no zero":                   "CB-08e=skip",
	"crumbs":                    "DS-18=differs",
	// ends
	"answers DISC":            "CD-01a",
	"ignores DISC":            "CD-01a CD-01b",
	"odd DISC":                "CD-01c=differs",
	"DISC loses":              "CD-01b:not",
	"works after DISC":        "CD-02=differs",
	"idle":                    "SD-02",
	"dies of a broken header": "DS-16 SD-04",
	"one lock":                "DS-07",
	// sizes
	"minimum of 3":        "S-01",
	"preferred of 300":    "S-02",
	"payload of 512":      "S-03",
	"odd size":            "S-05=differs",
	"odd lengths fail":    "S-06",
	"EOVERFLOW for flags": "ER-02=differs",
	"ENOMEM for size":     "ER-03=differs",
	// extended headers
	"offset of the chunk":    "XH-01a:XH-01",
	"compact all the same":   "XH-01b",
	"simple in extended":     "XH-02",
	"bare WRITE undrained":   "XH-03b:step",
	"bare WRITE refused":     "XH-03b=pass",
	"bare WRITE hangs up":    "XH-03b=differs:hangs",
	"bare WRITE dropped":     "XH-03b",
	"payloads undrained":     "XH-04",
	"payload of a flag":      "XH-06",
	"type of the other kind": "XH-07:XH-07 XH-08:XH-08",
	"upper bits":             "XH-07:XH-07",
	"count of extents":       "XH-07:XH-07",
	"ignores the list":       "XH-09a:CB-02",
	"any context":            "XH-09b",
	"lengths of 32 bits":     "XH-10b XH-11",
	// several connections
	"own disk": "MO-04 MO-05 TF-08 K-03",
}

func TestTransmissionFlaws(t *testing.T) {
	all := transmissionChecks()
	for flaw, text := range transmissionFlaws {
		t.Run(flaw, func(t *testing.T) {
			t.Parallel()
			for _, field := range strings.Fields(text) {
				field, word, _ := strings.Cut(field, ":")
				id, verdict, named := strings.Cut(field, "=")
				if !named {
					verdict = string(Fail)
				}
				at := slices.IndexFunc(all, func(c Check) bool { return c.ID == id })
				if at < 0 {
					t.Fatalf("there is no check %s", id)
				}
				// One run for each check, because a flaw may end the server. On a busy machine the
				// time may be over before the flaw has shown; try with more time.
				found := func(r Result) bool {
					return string(r.Verdict) == verdict && strings.Contains(r.Detail, word)
				}
				r := runFlawed(t, flaw, all[at:at+1], 5*time.Second).Results[0]
				if !found(r) {
					r = runFlawed(t, flaw, all[at:at+1], 30*time.Second).Results[0]
				}
				if !found(r) {
					t.Errorf("%s: %s (%s), not %s that says %q",
						id, r.Verdict, r.Detail, verdict, word)
				}
			}
		})
	}
}
