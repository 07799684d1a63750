// All exports of a server: opened a few at a time, printed as they are known.
//
// Invariant: rows come in the server's order; memory is that of the names and of one table's page;
// what ends the listing early leaves what was printed whole, and says how much is missing.

package describe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"ringnbd/engine/client"
	"ringnbd/proto"
)

const (
	dialsMost = 8  // exports that are opened at the same time
	page      = 64 // rows whose columns are as wide as they need; later ones keep to these widths
)

// found is an export that was opened, or could not be.
type found struct {
	facts  Facts // of one that could not: its name and its description
	server Server
	failed string // why it could not be opened, or ""
}

// list asks for the names, and then for each export by itself: some servers only tell the truth
// about one that is opened.
func list(ctx context.Context, o *Options, w io.Writer, flush func() error) error {
	names, left, err := client.List(ctx, &o.Target, client.Options{Timeout: o.Timeout})
	if err != nil {
		return err
	}
	rows := rows{w: w, json: o.JSON, table: table{w: w, width: o.Width, mark: "~"}}
	if o.Fancy {
		rows.table.mark = "…"
	}
	queue := make(chan chan found, dialsMost) // in the server's order
	quit := make(chan struct{})
	defer close(quit)
	go func() {
		defer close(queue)
		for _, n := range names {
			c := make(chan found, 1)
			select {
			case queue <- c:
			case <-quit:
				return
			}
			go func() { c <- open(ctx, o, n) }()
		}
	}()
	shown, failed := 0, 0
	last := time.Now()
	for c := range queue {
		f := <-c
		if ctx.Err() != nil {
			break
		}
		if err := rows.add(&f); err != nil {
			return err
		}
		if shown++; f.failed != "" {
			failed++
		}
		if time.Since(last) > time.Second { // who waits sees something
			if err := errors.Join(rows.settle(), flush()); err != nil {
				return err
			}
			last = time.Now()
		}
	}
	left += len(names) - shown
	if err := rows.end(left); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: %d exports are not shown", left)
	case left > 0:
		return fmt.Errorf("the server has too many exports: %d are not shown", left)
	case failed == 1:
		return fmt.Errorf("an export of the server could not be opened; the list says why")
	case failed > 0:
		return fmt.Errorf("%d of the server's %d exports could not be opened; the list says why",
			failed, shown)
	}
	return nil
}

// open opens one export, and closes it.
func open(ctx context.Context, o *Options, n client.Listing) found {
	t := o.Target
	t.Export = n.Name
	c, err := client.Dial(ctx, &t,
		client.Options{Timeout: o.Timeout, Offered: true,
			Contexts: []string{proto.ContextAllocation}})
	if err != nil {
		return found{facts: Facts{Name: n.Name, Description: n.Description}, failed: err.Error()}
	}
	f := found{facts: factsOf(&c.Negotiated, t.URI(n.Name)), server: newServer(&c.Negotiated)}
	f.facts.Name = n.Name
	if f.facts.Description == "" {
		f.facts.Description = n.Description
	}
	_ = c.Close() // all was said
	return f
}

// rows prints exports, as lines of a table or as elements of a JSON array.
type rows struct {
	w     io.Writer
	json  bool
	wait  []found // until it is known how wide the columns are, or what the server speaks
	begun bool
	some  bool
	whole bool // there are no rows but those that wait
	table table
}

func (r *rows) add(f *found) error {
	if r.begun {
		return r.row(f)
	}
	r.wait = append(r.wait, *f)
	if len(r.wait) == page || r.json && f.failed == "" {
		return r.settle()
	}
	return nil
}

// settle prints the head, and what has waited for it.
func (r *rows) settle() error {
	if r.begun {
		return nil
	}
	r.begun = true
	if err := r.head(); err != nil {
		return err
	}
	for i := range r.wait {
		if err := r.row(&r.wait[i]); err != nil {
			return err
		}
	}
	r.wait = nil
	return nil
}

func (r *rows) head() error {
	if r.json {
		begin := "{\n" // what the server speaks is not known if no export was opened
		for i := range r.wait {
			if f := &r.wait[i]; f.failed == "" {
				s := &f.server
				begin = fmt.Sprintf("{\n  \"protocol\": %q,\n  \"TLS\": %t,\n  \"structured\": "+
					"%t,\n  \"extended\": %t,\n", s.Protocol, s.TLS, s.Structured, s.Extended)
			}
		}
		_, err := io.WriteString(r.w, begin+"  \"exports\": [")
		return err
	}
	return r.table.begin(r.wait, r.whole)
}

func (r *rows) row(f *found) error {
	if !r.json {
		return r.table.row(f)
	}
	var b bytes.Buffer
	b.WriteString("\n    ")
	if r.some {
		b.Reset()
		b.WriteString(",\n    ")
	}
	r.some = true
	e := json.NewEncoder(&b)
	e.SetIndent("    ", "  ")
	e.SetEscapeHTML(false)
	known := any(&f.facts)
	if f.failed != "" {
		known = &unopened{f.facts.Name, f.facts.Description, f.failed}
	}
	if err := e.Encode(known); err != nil {
		return err
	}
	_, err := r.w.Write(bytes.TrimRight(b.Bytes(), "\n"))
	return err
}

// end closes what was opened; left is how many exports are missing.
func (r *rows) end(left int) error {
	r.whole = true
	if err := r.settle(); err != nil || !r.json {
		return err
	}
	last := "\n  ]"
	if !r.some {
		last = "]"
	}
	if left > 0 {
		last += fmt.Sprintf(",\n  \"exports-not-shown\": %d", left)
	}
	_, err := io.WriteString(r.w, last+"\n}\n")
	return err
}
