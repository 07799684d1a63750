// The report as one HTML page. Invariant: everything on it comes out of the Report;
// it needs nothing but itself (no script, no font, no picture from elsewhere, which
// its own content security policy forbids), it holds the report's JSON, and it is
// well-formed XML too, so that a test can take it apart.

package show

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"os"
	"slices"
	"time"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
	"ringnbd/engine/units"
)

//go:embed report.html.tmpl
var pageText string

//go:embed report.css
var pageStyle string

var pageTemplate = template.Must(template.New("report").Parse(pageText))

// page is what the template shows.
type page struct {
	Title    string
	Style    template.CSS
	Summary  []fact
	Ahead    ahead
	Targets  []targetRow
	Plots    []chapter
	Profile  *profilePage
	Sections []sectionTable
	Warning  string
	Failures []string
	Attempts int // measurements, those that failed included
	Machine  []fact
	Servers  []serverFact
	JSON     template.JS
	Download template.URL
	FileName string
}

// fact is a name and what it is.
type fact struct{ Name, Value string }

// serverFact is what is known about one server.
type serverFact struct{ Name, Storage, Version string }

// chapter is the plots of one section.
type chapter struct {
	Anchor, Name, Question string
	Table                  string // anchor of the section's table
	Figures                []drawing
}

// HTML writes the report to path as one page that needs nothing else.
func HTML(r *measure.Report, path string) error {
	p, err := report{r}.page()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return fmt.Errorf("the HTML report: %w", err)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// page gathers everything.
func (r report) page() (*page, error) {
	p := &page{
		Title:    "NBD servers side by side, " + r.Date.Format("2 January 2006"),
		Style:    inkSheet() + template.CSS(pageStyle),
		Summary:  r.summary(),
		Ahead:    r.ahead(),
		Targets:  targetRows(judge.Targets(r.Report)),
		Warning:  judge.Warning(r.Report),
		Failures: r.Failures(),
		Attempts: r.attempts(),
		Machine:  machineFacts(r.Machine),
		Servers:  r.serverFacts(),
		FileName: "ringnbd-bench-" + r.Date.Format("2006-01-02") + ".json.gz",
	}
	draw := plots{report: r, looks: newLooks(r.Report)}
	for i, name := range r.everySection() {
		table := r.htmlTable(name, fmt.Sprintf("table-%d", i+1), draw.looks)
		p.Sections = append(p.Sections, table)
		if figures := draw.section(name); len(figures) > 0 {
			p.Plots = append(p.Plots,
				chapter{Anchor: fmt.Sprintf("plots-%d", i+1), Name: name, Question: question(name),
					Table: table.Anchor, Figures: figures})
		}
	}
	if len(r.Profiles) > 0 {
		p.Profile = draw.profilePage(r.Profiles)
	}
	return p, p.embed(r.Report)
}

// embed puts the report itself into the page: as text for programs that read the
// page, and packed for people who want the file. Browsers refuse to save a link of
// more than about 2 MB, which the plain text of a long run exceeds.
func (p *page) embed(r *measure.Report) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	p.JSON = template.JS(text) // Marshal escapes <, > and &
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(append(text, '\n')); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	p.Download = template.URL("data:application/gzip;base64," +
		base64.StdEncoding.EncodeToString(packed.Bytes()))
	return nil
}

// everySection lists the sections in the order of the run, also those that only the
// raw limit has met.
func (r report) everySection() []string {
	var names []string
	for _, result := range r.Results {
		if !slices.Contains(names, result.Load.Section) {
			names = append(names, result.Load.Section)
		}
	}
	return names
}

// attempts counts all measurements.
func (r report) attempts() int {
	n := 0
	for _, result := range r.Results {
		n += len(result.Samples) + len(result.Errors)
	}
	return n
}

// question is what a section answers; empty for one that is not known here.
func question(name string) string {
	s, _ := measure.SectionNamed(name)
	return s.Question
}

// summary says what was run.
func (r report) summary() []fact {
	return []fact{
		{"Made by", r.Command},
		{"Date", r.Date.UTC().Format(time.RFC1123)},
		{"Rounds",
			fmt.Sprintf("%d of %g s each, the servers in a new order in each", r.Rounds,
				r.Seconds)},
		{"Test file", units.Exact(uint64(r.Size))},
		{"Machine", r.Machine.String()},
	}
}

// facts are the machine's, without those that could not be read.
func machineFacts(m measure.Machine) []fact {
	virtual := "no"
	if m.Hypervisor {
		virtual = "yes"
	}
	all := []fact{
		{"Processor", m.CPU},
		{"Cores", fmt.Sprint(m.Cores)},
		{"Virtual machine", virtual},
		{"Memory", fmt.Sprintf("%.1f GiB", float64(m.Memory)/(1<<30))},
		{"Kernel", m.Kernel},
		{"System", m.OS},
		{"Test file on", m.Filesystem},
		{"Disk", m.Device},
		{"TCP congestion control", m.Congestion},
		{"Frequency governor", m.Governor},
		{"Idle driver", m.IdleDriver},
	}
	for _, transport := range slices.Sorted(maps.Keys(m.Loopback)) {
		all = append(all,
			fact{"One stream over " + transport, digits(m.Loopback[transport]/(1<<20)) + " MiB/s"})
	}
	return slices.DeleteFunc(all, func(f fact) bool { return f.Value == "" })
}

// serverFacts joins what the report knows about each program.
func (r report) serverFacts() []serverFact {
	names := slices.Collect(maps.Keys(r.Storage))
	for name := range r.Machine.Versions {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var all []serverFact
	for _, name := range names {
		all = append(all, serverFact{name, r.Storage[name], r.Machine.Versions[name]})
	}
	return all
}

// targetRow is a target with its verdict in words.
type targetRow struct {
	Name, Wants, Got, Verdict, Class string
}

func targetRows(targets []judge.Target) []targetRow {
	var rows []targetRow
	for _, t := range targets {
		row := targetRow{t.Name, t.Wants, t.Got, t.Verdict(), "quiet"}
		switch {
		case t.Met == nil, t.Close:
		case *t.Met:
			row.Class = "good"
		default:
			row.Class = "bad"
		}
		rows = append(rows, row)
	}
	return rows
}

// profilePage is where the CPU time went.
type profilePage struct {
	Figure   drawing
	Profiles []profileTable
}

// profileTable is one profile in numbers.
type profileTable struct {
	Load, Server, Seconds string
	Stages                []stageRow
	Top                   []topRow
}

type stageRow struct {
	Name          string
	Swatch        template.HTML
	Share, Micros string
}

type topRow struct{ Name, Share string }

func (p *plots) profilePage(profiles []measure.Profile) *profilePage {
	var all profilePage
	all.Figure = p.profile(profiles)
	for _, f := range profiles {
		t := profileTable{Load: f.Load.String(), Server: f.Server, Seconds: digits(f.Seconds)}
		for _, s := range f.Stages {
			t.Stages = append(t.Stages,
				stageRow{s.Name, barSwatch(stageInk(s.Name), 1), percent(s.Share),
					digits(s.MicrosPerRequest)})
		}
		for _, s := range f.Top {
			t.Top = append(t.Top, topRow{s.Name, percent(s.Share)})
		}
		all.Profiles = append(all.Profiles, t)
	}
	return &all
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }
