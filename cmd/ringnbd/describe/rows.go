// All exports of a server: opened a few at a time, and printed as soon as they are known.
//
// Invariant: rows are in the server's order; memory is that of the names and of one page of the
// table; a listing that ends early leaves whole lines or valid JSON, and says how many exports are
// missing.

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
	maxDials = 8  // exports that are opened at the same time
	page     = 64 // rows that determine the widths of columns; later rows keep them
)

// found is an export that was opened, or could not be.
type found struct {
	export exportInfo // if it could not be opened: its name and its description
	server serverInfo
	failed string // why it could not be opened, or ""
}

// list asks for the names, and then opens each export: some servers tell the truth about an export
// only when it is opened.
func list(ctx context.Context, o *Options, w io.Writer, flush func() error) error {
	names, left, err := client.List(ctx, &o.Target, client.Options{Timeout: o.Timeout})
	if err != nil {
		return err
	}
	rows := rows{w: w, json: o.JSON, table: table{w: w, width: o.Width, mark: "~"}}
	if o.Fancy {
		rows.table.mark = "…"
	}
	queue := make(chan chan found, maxDials) // in the server's order
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
		if time.Since(last) > time.Second { // show what there is
			if err := errors.Join(rows.flushWaiting(), flush()); err != nil {
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

// open opens an export to describe it, and closes it.
func open(ctx context.Context, o *Options, n client.Listing) found {
	t := o.Target
	t.Export = n.Name
	c, err := client.Dial(ctx, &t,
		client.Options{Timeout: o.Timeout, Offered: true,
			Contexts: []string{proto.ContextAllocation}})
	if err != nil {
		return found{export: exportInfo{Name: n.Name, Description: n.Description},
			failed: err.Error()}
	}
	f := found{export: exportOf(&c.Negotiated, t.URI(n.Name)), server: newServer(&c.Negotiated)}
	f.export.Name = n.Name
	if f.export.Description == "" {
		f.export.Description = n.Description
	}
	_ = c.Close() // the description is complete
	return f
}

// rows prints exports, as lines of a table or as elements of a JSON array.
type rows struct {
	w     io.Writer
	json  bool
	wait  []found // until the widths of columns, or the protocol of the server, are known
	begun bool
	some  bool
	whole bool // the waiting rows are all rows
	table table
}

func (r *rows) add(f *found) error {
	if r.begun {
		return r.row(f)
	}
	r.wait = append(r.wait, *f)
	if len(r.wait) == page || r.json && f.failed == "" {
		return r.flushWaiting()
	}
	return nil
}

// flushWaiting prints the head, and the rows that waited for it.
func (r *rows) flushWaiting() error {
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
		begin := "{\n" // without the protocol, which is not known if no export was opened
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
	description := any(&f.export)
	if f.failed != "" {
		description = &unopened{f.export.Name, f.export.Description, f.failed}
	}
	if err := e.Encode(description); err != nil {
		return err
	}
	_, err := r.w.Write(bytes.TrimRight(b.Bytes(), "\n"))
	return err
}

// end prints the end of the table or of the JSON; left is how many exports are missing.
func (r *rows) end(left int) error {
	r.whole = true
	if err := r.flushWaiting(); err != nil || !r.json {
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
