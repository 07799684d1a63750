// Several servers side by side, rule by rule, as Markdown, with the reasons of their failures.
//
// Invariant: every failure and every deviation of each server is in the output, explained or marked
// as unexplained.

package conform

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Peer is a server and the report of its run.
type Peer struct {
	Name    string // as in the keys of the explanations
	Version string
	Command string
	Report  *Report
}

// explanation returns why a server does what a check saw, from its source or documents; "" if the
// reason is not known.
func explanation(server, id string) string { return explained[server+" "+id] }

// Unexplained returns "SERVER ID" for every failure and deviation without an explanation.
func Unexplained(peers []Peer) []string {
	var list []string
	for _, p := range peers {
		for _, r := range p.Report.Results {
			if (r.Verdict == Fail || r.Verdict == Differs) && explanation(p.Name, r.ID) == "" {
				list = append(list, p.Name+" "+r.ID)
			}
		}
	}
	return list
}

// Idle returns the keys of explanations that these runs did not need.
func Idle(peers []Peer) []string {
	seen := map[string]bool{}
	for _, p := range peers {
		for _, r := range p.Report.Results {
			seen[p.Name+" "+r.ID] = r.Verdict == Fail || r.Verdict == Differs
		}
	}
	var list []string
	for key := range explained {
		if was, known := seen[key]; known && !was {
			list = append(list, key)
		}
	}
	slices.Sort(list)
	return list
}

// tableHead opens TABLE.md.
const tableHead = `# Conformance of NBD servers, rule by rule

Written by ` + "`make conform`" + `; do not edit. README.md beside this file explains the suite.
✓ pass, **✗** fail (a MUST is violated), ≠ differs (allowed, but noted),
· skip (the server does not have it, or there is nothing to see).
What an explanation calls a matter of timing may differ from run to run.

`

// Markdown writes the table, and after it the failures and deviations of each server with what was
// seen and why. All reports are of the same checks.
func Markdown(w io.Writer, peers []Peer) error {
	var b strings.Builder
	b.WriteString(tableHead)
	for _, p := range peers {
		fmt.Fprintf(&b, "- **%s**: %s. %s. `%s`\n",
			p.Name, p.Version, p.Report.Summary(), cell(p.Command))
	}
	b.WriteString("\n| rule | level | what |")
	for _, p := range peers {
		b.WriteString(" " + p.Name + " |")
	}
	b.WriteString("\n|---|---|---|" + strings.Repeat(":-:|", len(peers)) + "\n")
	for i, r := range peers[0].Report.Results {
		fmt.Fprintf(&b, "| %s | %s | %s |", r.ID, r.Level, cell(r.Title))
		for _, p := range peers {
			fmt.Fprintf(&b, " %s |",
				map[Verdict]string{Pass: "✓", Fail: "**✗**", Differs: "≠",
					Skip: "·"}[p.Report.Results[i].Verdict])
		}
		b.WriteString("\n")
	}
	for _, p := range peers {
		p.explain(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *Peer) explain(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n", p.Name)
	n := b.Len()
	for _, r := range p.Report.Results {
		if r.Verdict != Fail && r.Verdict != Differs {
			continue
		}
		why := explanation(p.Name, r.ID)
		if why == "" {
			why = "**unexplained**"
		}
		fmt.Fprintf(b, "- %s %s: %s Seen: %s\n", r.ID, r.Verdict, why, cell(clip(r.Detail)))
	}
	if b.Len() == n {
		b.WriteString("Nothing to explain.\n")
	}
}

// clip returns the start of a long observation.
func clip(text string) string {
	const maxClip = 200
	if runes := []rune(text); len(runes) > maxClip {
		return string(runes[:maxClip]) + " ..."
	}
	return text
}

// cell makes text fit for a table cell: one line, without a bar.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(text)
}
