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

	pageTemplate = template.Must(template.New("page").Parse(pageText))
)

// page is what the template shows.
type page struct {
	*measure.Report
	Title    string
	Style    template.CSS
	Measured string // how much
	Verdicts string // counted
	Warning  string
	Attempts int // measurements, those that failed included
	Tiles    []tile
	Ratios   *htmlTable
	Targets  htmlTable
	Chapters []chapter
	Profile  *figure
	Stages   *htmlTable  // of the profiles
	Tops     []htmlTable // and their functions
	Facts    []fact      // of the machine
	Programs htmlTable
	JSON     template.JS
	Download template.URL
	FileName string
}

// fact is a name and what it is.
type fact struct{ Name, Value string }

// chapter is one section of the run.
type chapter struct {
	Anchor, Name, Question string
	Figures                []figure
	Table                  htmlTable
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
	p := &page{Report: r.Report,
		Title: "NBD servers side by side, " + r.Date.Format("2 January 2006"),
		Style: template.CSS(colours + pageStyle),
		Measured: fmt.Sprintf("%s, the servers in a new order in each round; a file of %s",
			r.rounds(), units.Exact(uint64(r.Size))),
		Verdicts: r.verdicts(),
		Targets:  r.targetCells(),
		Warning:  judge.Warning(r.Report),
		Facts:    machineFacts(r.Machine),
		Programs: r.programCells(),
		FileName: "ringnbd-bench-" + r.Date.Format("2006-01-02") + ".json.gz",
	}
	p.Tiles, p.Ratios = r.ahead()
	draw := plots{report: r}
	for _, result := range r.Results {
		p.Attempts += len(result.Samples) + len(result.Errors)
		name := result.Load.Section
		if slices.ContainsFunc(p.Chapters, func(c chapter) bool { return c.Name == name }) {
			continue
		}
		c := chapter{Anchor: fmt.Sprintf("section-%d", len(p.Chapters)+1), Name: name,
			Figures: draw.section(name)}
		section, _ := measure.SectionNamed(name)
		c.Question = section.Question
		c.Table = r.sectionCells(name, c.Anchor+"-table")
		p.Chapters = append(p.Chapters, c)
	}
	if len(r.Profiles) > 0 {
		profile := draw.profile(r.Profiles)
		tables := profileCells(r.Profiles)
		p.Profile, p.Stages, p.Tops = &profile, &tables[0], tables[1:]
	}
	return p, p.embed(r.Report)
}

// embed puts the report itself into the page: as text for programs that read the page, and packed
// for people who want the file. Browsers refuse to save a link of more than about 2 MB, which the
// plain text of a long run exceeds.
func (p *page) embed(r *measure.Report) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	p.JSON = template.JS(text) // Marshal escapes <, > and &
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
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

// machineFacts are those that the line about the machine does not have.
func machineFacts(m measure.Machine) []fact {
	all := []fact{{"Disk", orNone(m.Device)}}
	for _, transport := range slices.Sorted(maps.Keys(m.Loopback)) {
		all = append(all,
			fact{"One stream over " + transport, digits(m.Loopback[transport]/(1<<20)) + " MiB/s"})
	}
	return all
}

// programFact is what is known about one server.
type programFact struct{ name, storage, version string }

// programs joins what the report knows about each program.
func (r report) programs() (all []programFact) {
	names := slices.AppendSeq(slices.Collect(maps.Keys(r.Storage)), maps.Keys(r.Machine.Versions))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		all = append(all, programFact{name, r.Storage[name], r.Machine.Versions[name]})
	}
	return all
}
