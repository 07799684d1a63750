// The report as one HTML page.
//
// Invariant: everything on it comes out of the Report; it needs nothing but itself (no script,
// no font, no picture from elsewhere, which its own content security policy forbids), it holds
// the report's JSON, and it is well-formed XML too, so that a test can take it apart.

package show

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"os"
	"slices"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
	"ringnbd/engine/units"
)

var (
	//go:embed page.html.tmpl
	pageText string
	//go:embed page.css
	pageStyle string
	//go:embed colours.css
	colours string

	pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
		"digits": digits, "look": lookOf, "orNone": orNone, "trim": trimZeros,
		"percent": func(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) },
		"mib":     func(v float64) float64 { return v / (1 << 20) },
	}).Parse(pageText))
)

// page is what the template shows.
type page struct {
	*measure.Report
	Style    template.CSS
	Measured string // how much
	Verdicts string // counted
	Warning  string
	Attempts int // measurements, those that failed included
	Ahead    *ahead
	Targets  []judge.Target
	Chapters []chapter
	Stages   *figure
	Programs []programFact
}

// chapter is one section of the run: its plots, and a table with a body per load.
type chapter struct {
	Anchor, Name, Question string
	Figures                []figure
	Columns                []metric
	Span                   int // of all columns
	Loads                  []loadRows
}

// HTML writes the report to path as one page that needs nothing else.
func HTML(r *measure.Report, path string) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, report{r}.page()); err != nil {
		return fmt.Errorf("the HTML report: %w", err)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// page gathers everything.
func (r report) page() *page {
	p := &page{Report: r.Report, Style: template.CSS(colours + pageStyle),
		Measured: fmt.Sprintf("%s, the servers in a new order in each round; a file of %s",
			r.rounds(), units.Exact(uint64(r.Size))),
		Verdicts: r.verdicts(), Warning: judge.Warning(r.Report), Ahead: r.ahead(),
		Targets: judge.Targets(r.Report), Programs: r.programs()}
	for _, result := range r.Results {
		p.Attempts += len(result.Samples) + len(result.Errors)
	}
	for i, name := range r.sections() {
		p.Chapters = append(p.Chapters, r.chapter(name, i+1))
	}
	if len(r.Profiles) > 0 {
		p.Stages = profileFigure(r.Profiles)
	}
	return p
}

// chapter gathers the n-th section.
func (r report) chapter(name string, n int) chapter {
	section, _ := measure.SectionNamed(name)
	c := chapter{Anchor: fmt.Sprintf("section-%d", n), Name: name, Question: section.Question,
		Figures: r.figures(name)}
	for i := range c.Figures {
		c.Figures[i].ID = fmt.Sprintf("figure-%d-%d", n, i+1)
	}
	c.Columns, c.Loads = r.rowsOf(name)
	c.Span = len(c.Columns) + 1
	return c
}

// Download is the report itself as a link to save it. It is packed: browsers refuse links of more
// than about 2 MB, which the plain text of a long run exceeds.
func (p *page) Download() (template.URL, error) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	err := errors.Join(json.NewEncoder(z).Encode(p.Report), z.Close())
	return template.URL("data:application/gzip;base64," +
		base64.StdEncoding.EncodeToString(packed.Bytes())), err
}

// programFact is what is known about one server.
type programFact struct{ Name, Storage, Version string }

// programs joins what the report knows about each program.
func (r report) programs() (all []programFact) {
	names := slices.AppendSeq(slices.Collect(maps.Keys(r.Storage)), maps.Keys(r.Machine.Versions))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		all = append(all, programFact{name, r.Storage[name], r.Machine.Versions[name]})
	}
	return all
}
