// ringnbd plan: what an export would be made of, without serving it.
//
// Invariant: nothing is changed, made or locked. Standard output has the whole outline also when a
// part of it cannot be served; then the exit status is 1.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"ringnbd/engine/backing"
	"ringnbd/engine/tree"
	"ringnbd/engine/units"
)

func newPlan() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "plan [flags] TREE",
		Short: "Show what an overlay is made of, what it promises and what it needs",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one tree, such as 'overlay(base.img, top.cow)', in " +
					"quotes for the shell")
			}
			n, err := tree.Parse(args[0])
			if err == nil {
				err = backing.Check([]backing.Spec{{Path: args[0]}})
			}
			if err != nil {
				return visibleError{err}
			}
			return asFailure(plan(n, asJSON, c.OutOrStdout()))
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

// plan prints the outline of a tree.
func plan(n *tree.Node, asJSON bool, stdout io.Writer) error {
	ctx, stop := interruptible()
	defer stop()
	var p backing.Part
	n.Paths(func(leaf *tree.Node) { awaitPath(leaf.Path) })
	err := backing.Await(ctx, func() error {
		p = backing.Outline(n)
		return nil
	})
	if err != nil {
		return visibleError{err}
	}
	if asJSON {
		e := json.NewEncoder(visibleJSON{stdout})
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(p)
	} else {
		err = printPlan(&p, stdout)
	}
	if err != nil {
		return err
	}
	wrong := p.Errors()
	for i, err := range wrong {
		wrong[i] = adviser(planAdvice).about(err)
	}
	if err := errors.Join(wrong...); err != nil {
		return visibleError{err}
	}
	return context.Cause(ctx)
}

// outliner draws parts below one another.
type outliner struct {
	width int
	fancy bool
	b     strings.Builder
}

func printPlan(p *backing.Part, stdout io.Writer) error {
	o := outliner{width: helpWidth, fancy: localeHasUnicode()}
	if t := terminalWidth(stdout); t > 1 {
		o.width = max(min(t, helpWidth), helpNarrow)
	}
	o.part(p, "", "")
	_, err := io.WriteString(stdout, o.b.String())
	return err
}

// part draws a part, its first line after one prefix and all others after another.
func (o *outliner) part(p *backing.Part, first, rest string) {
	title := visible(p.Text)
	if p.Role != "" {
		title = p.Role + ": " + title
	}
	o.lines(title, first, rest)
	below := rest + "   "
	if len(p.Parts) > 0 {
		below = rest + o.rule("│  ", "|  ")
	}
	o.lines(kindLine(p), below, below)
	for _, group := range []struct {
		name  string
		texts []string
	}{{"promises", p.Promises}, {"needs", p.Needs}, {"wrong", p.Wrong}} {
		for i, line := range group.texts {
			name := ""
			if i == 0 {
				name = group.name
			}
			o.lines(visible(line), below+fmt.Sprintf("  %-9s ", name),
				below+strings.Repeat(" ", 12))
		}
	}
	for i := range p.Parts {
		if i == len(p.Parts)-1 {
			o.part(&p.Parts[i], rest+o.rule("└─ ", "`- "), rest+"   ")
			continue
		}
		o.part(&p.Parts[i], rest+o.rule("├─ ", "+- "), rest+o.rule("│  ", "|  "))
	}
}

// rule is a piece of a line, in letters that the terminal has.
func (o *outliner) rule(fancy, plain string) string {
	if o.fancy {
		return fancy
	}
	return plain
}

// lines wraps a text behind its prefixes.
func (o *outliner) lines(line, first, rest string) {
	width := max(o.width-text.StringWidthWithoutEscSequences(first), 20)
	for wrapped := range strings.Lines(text.WrapSoft(line, width)) {
		o.b.WriteString(strings.TrimRight(first+strings.TrimRight(wrapped, " \n"), " ") + "\n")
		first = rest
	}
}

// kindLine says what a part is and how large.
func kindLine(p *backing.Part) string {
	words := []string{p.Kind}
	if p.Kind == "" {
		words[0] = "not there"
	}
	if p.Size > 0 {
		words = append(words, units.Size(p.Size))
	}
	if p.Used > 0 {
		words = append(words, "of which "+units.Size(p.Used)+" are on its disk")
		if p.Size == 0 {
			words[len(words)-1] = units.Size(p.Used) + " on its disk"
		}
	}
	if p.Block > 0 {
		words = append(words, "blocks of "+units.Exact(uint64(p.Block)))
	}
	return strings.Join(words, ", ")
}

// planAdvice is what `ringnbd plan` can do about an error.
func planAdvice(err error) string {
	var access *backing.AccessError
	if errors.As(err, &access) {
		return accessAdvice(access, "", "")
	}
	return ""
}
