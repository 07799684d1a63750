// Tests of the page as text: that it is well-formed, needs nothing else, holds every figure, and
// takes hostile names for what they are. What it looks like is judged by page_browser_test.go.

package show

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
)

// element is a part of a page that was taken apart.
type element struct {
	name       string
	attributes map[string]string
	children   []*element
	chars      string // when it is text: the name is empty
}

// text is all that stands within.
func (e *element) text() string {
	var b strings.Builder
	for _, part := range everything(e) {
		b.WriteString(part.chars)
	}
	return b.String()
}

// all finds the elements of a name, and of a class when one is given.
func (e *element) all(name, class string) []*element {
	var found []*element
	for _, c := range e.children {
		if c.name == name &&
			(class == "" || slices.Contains(strings.Fields(c.attributes["class"]), class)) {
			found = append(found, c)
		}
		found = append(found, c.all(name, class)...)
	}
	return found
}

// takeApart writes the report as a page and parses it strictly.
func takeApart(t *testing.T, r *measure.Report) *element {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.html")
	if err := HTML(r, path); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	root := &element{}
	open := []*element{root}
	d := xml.NewDecoder(bytes.NewReader(page))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return root
		}
		if err != nil {
			t.Fatalf("the page is not well-formed: %v", err)
		}
		switch x := token.(type) {
		case xml.StartElement:
			e := &element{name: x.Name.Local, attributes: map[string]string{}}
			for _, a := range x.Attr {
				e.attributes[a.Name.Local] = a.Value
			}
			parent := open[len(open)-1]
			parent.children = append(parent.children, e)
			open = append(open, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			parent := open[len(open)-1]
			parent.children = append(parent.children, &element{chars: string(x)})
		case xml.Comment:
			t.Errorf("a comment on the page: %s", x)
		}
	}
}

// smallReport has two sections, four servers, a load that failed for one of them and a round that
// failed for another.
func smallReport() *measure.Report {
	r := &measure.Report{Command: "make bench ONLY=disk,curve",
		Date: time.Date(2026, 11, 21, 6, 30, 0, 0, time.UTC), Size: 2 << 30, Seconds: 3, Rounds: 2,
		Machine: measure.Machine{CPU: "Example CPU", Cores: 2, Memory: 24 << 30, Kernel: "6.18",
			OS: "Debian", Versions: map[string]string{"nbdkit": "nbdkit 1.32.5"}},
		Storage: map[string]string{"ringnbd": "O_DIRECT, io_uring", "nbdkit": "page cache, threads",
			"qemu-nbd": "O_DIRECT, io_uring"}, Direct: []string{"ringnbd", "qemu-nbd"}}
	disk := measure.Load{Section: "disk", Pattern: "randread", BlockSize: 4096, Depth: 32,
		Connections: 4, Transport: measure.TCP, Backend: measure.File}
	add := func(l measure.Load, server string, rate, p50, user, system float64, errors ...string) {
		result := measure.Result{Load: l, Server: server, Errors: errors}
		for round := 1; round <= r.Rounds && rate > 0 && len(errors) < r.Rounds; round++ {
			if round == 2 && len(errors) == 1 {
				continue
			}
			k := 1 + 0.1*float64(round-1)
			result.Samples = append(result.Samples,
				measure.Sample{Round: round, Requests: int64(3 * rate), Seconds: 3,
					RequestsPerSecond: rate * k, BytesPerSecond: 4096 * rate * k,
					P50: p50 * k, P99: 2 * p50 * k, P999: 3 * p50 * k, ServerUser: user * k,
					ServerSystem: system * k, Steal: 0.0125, PeakRSS: 196 << 20})
		}
		result.Median = measure.MedianSample(result.Samples)
		r.Results = append(r.Results, result)
	}
	add(disk.Limit(), measure.RawName, 128000, 1100, 0, 0)
	add(disk, "ringnbd", 120000, 1200, 0.4, 3.4)
	add(disk, "nbdkit", 76000, 1300, 1.5, 12.5, "round 2: broken pipe")
	add(disk, "qemu-nbd", 0, 0, 0, 0, "round 1: not ready in time", "round 2: no such file")
	for _, rate := range []float64{20000, 90000} {
		l := disk
		l.Section, l.Rate = "curve", rate
		add(l, "ringnbd", rate, 150, 0.5, 4)
		add(l, "nbdkit", min(rate, 60000), 400, 1.5, 12)
	}
	return r
}

func TestPageHoldsEveryFigure(t *testing.T) {
	page := takeApart(t, smallReport())
	rows := page.all("tr", "result")
	if len(rows) != 8 {
		t.Fatalf("%d rows, want 8", len(rows))
	}
	for i, want := range [][]string{
		{"raw", "134,400", "128,000–140,800", "1,155", "2,310", "3,465", "–", "1.2"},
		{"ringnbd", "126,000", "120,000–132,000", "1,260", "3.99", "3.80–4.18", "0.42", "3.57",
			"196", "1.2"},
		{"nbdkit", "76,000", "1,300", "14.0", "1.50", "12.5"},
		{"qemu-nbd", "failed", "round 1: not ready in time", "round 2: no such file"},
		{"ringnbd", "21,000", "158"},
	} {
		text := rows[i].text()
		for _, figure := range want {
			if !strings.Contains(text, figure) {
				t.Errorf("row %d has no %q: %s", i, figure, text)
			}
		}
	}
	if errors := page.all("tr", "errors"); len(errors) != 1 ||
		!strings.Contains(errors[0].text(), "round 2: broken pipe") {
		t.Errorf("the failed round of nbdkit has no row of its own: %v", errors)
	}
	for _, want := range []string{"make bench ONLY=disk,curve", "Example CPU", "nbdkit 1.32.5",
		"page cache, threads", "2 GiB"} {
		if !strings.Contains(page.text(), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if got := page.all("p", "failed")[0].text(); got != "3 of 16 measurements failed." {
		t.Errorf("the page says %q", got)
	}
	if got := len(page.all("table", "targets")[0].all("tr", "")) -
		1; got != len(judge.Targets(smallReport())) {
		t.Errorf("%d targets on the page", got)
	}
}

func TestPageLeadsWithTheRatios(t *testing.T) {
	r := smallReport()
	r.Results[3] = r.Results[2] // as if qemu-nbd had been measured
	r.Results[3].Server, r.Results[3].Errors = "qemu-nbd", nil
	page := takeApart(t, r)
	rows := page.all("table", "ahead")[0].all("tr", "")
	if len(rows) != 2 {
		t.Fatalf("%d rows, want the head and one load", len(rows))
	}
	for _, want := range []string{"0.94", "1.58qemu-nbd", "0.27qemu-nbd"} {
		if !strings.Contains(rows[1].text(), want) {
			t.Errorf("no %q in %q", want, rows[1].text())
		}
	}
	if tiles := page.all("ul", "tiles")[0].all("li", ""); len(tiles) != 4 ||
		!strings.HasPrefix(tiles[0].text(), "0.94 of the raw limit") {
		t.Errorf("the headline is %d tiles", len(tiles))
	}
}

func TestPlotsTellTheirFiguresAndTheirGaps(t *testing.T) {
	page := takeApart(t, smallReport())
	bars, plots := page.all("div", "bars"), page.all("svg", "plot")
	if len(bars) != 2 || len(plots) != 2 {
		t.Fatalf("%d plots with bars and %d with lines, want rate and CPU of disk, p50 and p99 of "+
			"curve", len(bars), len(plots))
	}
	for i, want := range [][]string{{"ringnbd126k", "nbdkit76.0k", "qemu-nbdfailed",
		"raw limit 134k", "O_DIRECT", "page cache"},
		{"ringnbd3.99", "nbdkit14.0", "qemu-nbdfailed"}} {
		for _, words := range want {
			if text := bars[i].text(); !strings.Contains(strings.ReplaceAll(text, "\n", ""),
				words) {
				t.Errorf("bars %d: no %q in %q", i, words, text)
			}
		}
	}
	want := "ringnbd: 158 µs at 20k, 158 µs at 90k. nbdkit (page cache): 420 µs at 20k, 420 µs " +
		"at 90k (rate not reached)"
	if words := plots[0].all("desc", "")[0].text(); !strings.Contains(words, want) {
		t.Errorf("no %q in %q", want, words)
	}
	for i, p := range plots {
		title := p.all("title", "")
		if len(title) != 1 || title[0].text() == "" || p.attributes["role"] != "img" {
			t.Errorf("plot %d has no title", i)
		}
		if got := p.attributes["aria-labelledby"]; got != fmt.Sprintf("%s %s",
			title[0].attributes["id"], p.all("desc", "")[0].attributes["id"]) {
			t.Errorf("plot %d is labelled by %q", i, got)
		}
	}
	hollow := plots[0].all("path", "hollow")
	if len(hollow) != 1 || !strings.Contains(page.all("ul", "legend")[0].text(), "Hollow: ") {
		t.Errorf("%d points that were not reached are hollow, or they are not explained",
			len(hollow))
	}
}

func TestServersOnThePageCacheStandApart(t *testing.T) {
	r := smallReport()
	r.Direct = append(r.Direct, "nbdkit")
	for want, direct := range map[int][]string{0: r.Direct, 2: r.Direct[:2]} {
		r.Direct = direct
		bars := takeApart(t, r).all("div", "bars")[0]
		if got := len(bars.all("p", "set")); got != want {
			t.Errorf("%d groups with %v on O_DIRECT, want %d", got, direct, want)
		}
		if got := len(bars.all("div", "cached")); got != want/2 {
			t.Errorf("%d servers are hatched with %v on O_DIRECT", got, direct)
		}
	}
}

func TestNoisyFiguresAreMarked(t *testing.T) {
	r := smallReport()
	for _, i := range []int{1, 4} { // of ringnbd, in disk and in curve
		s := &r.Results[i]
		s.Samples[0].RequestsPerSecond, s.Samples[0].P50 = 1e3, 1e3
		s.Samples[1].RequestsPerSecond, s.Samples[1].P50 = 3e3, 3e3
		s.Median = measure.MedianSample(s.Samples)
	}
	r.Results[4].Load.Rate = 1
	page := takeApart(t, r)
	if text := page.all("div", "bars")[0].text(); !strings.Contains(text, "~2000") {
		t.Errorf("a noisy bar is not marked: %s", text)
	}
	if n := len(page.all("svg", "plot")[0].all("path", "noisy")); n != 1 {
		t.Errorf("%d points are crossed out", n)
	}
	if text := page.text(); !strings.Contains(text, "Crossed out: noisy") ||
		!strings.Contains(text, "~ noisy") {
		t.Error("the marks are not explained")
	}
}

func TestLatencyIsPlottedByPercentile(t *testing.T) {
	r := smallReport()
	disk := r.Results[:4]
	for i := range disk {
		if disk[i].Server != measure.RawName {
			disk[i].Load.Transport = measure.Unix
		}
	}
	for i := range r.Results[1].Samples {
		r.Results[1].Samples[i].P9999 = 9000
	}
	r.Results[1].Median.P9999 = 9000
	words := takeApart(t, r).all("svg", "plot")[0].all("desc", "")[0].text()
	for _, want := range []string{"raw: 1.16 ms at p50, 2.31 ms at p99, 3.46 ms at p99.9.",
		"ringnbd: 1.26 ms at p50, 2.52 ms at p99, 3.78 ms at p99.9, 9.00 ms at p99.99."} {
		if !strings.Contains(words, want) {
			t.Errorf("no %q in %q", want, words)
		}
	}
}

func TestPageNeedsNothingElse(t *testing.T) {
	page := takeApart(t, plausibleReport())
	var walk func(*element)
	seen := 0
	walk = func(e *element) {
		for name, value := range e.attributes {
			switch name {
			case "src", "srcset", "href", "action", "data", "poster", "background", "manifest",
				"ping":
				seen++
				if !strings.HasPrefix(value, "#") && !strings.HasPrefix(value, "data:") {
					t.Errorf("<%s %s=%q> points elsewhere", e.name, name, value)
				}
			case "style":
				if strings.Contains(value, "url(") {
					t.Errorf("<%s style=%q> points elsewhere", e.name, value)
				}
			}
			if strings.HasPrefix(name, "on") {
				t.Errorf("<%s %s> runs a script", e.name, name)
			}
		}
		if slices.Contains([]string{"link", "iframe", "img", "image", "object", "embed", "use",
			"base", "script"}, e.name) {
			t.Errorf("the page has a <%s>", e.name)
		}
		for _, c := range e.children {
			walk(c)
		}
	}
	walk(page)
	if seen < 20 {
		t.Errorf("only %d links were looked at", seen)
	}
	for _, s := range page.all("style", "") {
		if found := regexp.MustCompile(`@import|url\(|https?:`).FindString(s.text()); found != "" {
			t.Errorf("the style sheet has %s", found)
		}
	}
	ids := map[string]bool{}
	for _, e := range everything(page) {
		if id := e.attributes["id"]; id != "" && ids[id] {
			t.Errorf("two elements have the id %s", id)
		} else {
			ids[id] = true
		}
	}
	for _, a := range page.all("a", "") {
		if target, inside := strings.CutPrefix(a.attributes["href"], "#"); inside && !ids[target] {
			t.Errorf("the link to #%s leads nowhere", target)
		}
	}
}

// everything lists an element and all within, as written.
func everything(e *element) []*element {
	all := []*element{e}
	for _, c := range e.children {
		all = append(all, everything(c)...)
	}
	return all
}

// reportOf decodes the report that a page holds in a link.
func reportOf(t *testing.T, page *element) *measure.Report {
	t.Helper()
	packed, ok := strings.CutPrefix(page.all("a", "download")[0].attributes["href"],
		"data:application/gzip;base64,")
	if !ok {
		t.Fatal("the link to save the report is none")
	}
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(packed)))
	if err != nil {
		t.Fatal(err)
	}
	saved, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	r := new(measure.Report)
	if err := json.Unmarshal(saved, r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPageHoldsItsReport(t *testing.T) {
	r := plausibleReport()
	if !reflect.DeepEqual(reportOf(t, takeApart(t, r)), r) {
		t.Error("the file to be saved is another report")
	}
}

func TestPageTakesHostileNamesForText(t *testing.T) {
	const script, image, end = `<script>alert(1)</script>`, `"><img src=x onerror="alert(2)">`,
		`</script></style></svg>{{.JSON}} $1 ]]>`
	r := smallReport()
	r.Command, r.Machine.CPU = script, image
	r.Storage[script], r.Machine.Versions[image] = end, script
	for i := range r.Results {
		result := &r.Results[i]
		switch result.Server {
		case "nbdkit":
			result.Server = script
		case "qemu-nbd":
			result.Server, result.Errors = image, []string{end, script}
		}
		if result.Load.Section == "curve" {
			result.Load.Section = end
			result.Load.Pattern = image
		}
	}
	r.Profiles = []measure.Profile{{Load: r.Results[1].Load, Server: script, Seconds: 1,
		Stages: []measure.Stage{{Name: image, Share: 1, MicrosPerRequest: 3}},
		Top:    []measure.Function{{Name: end, Share: 1}}}}
	page := takeApart(t, r)
	if n := len(page.all("script", "")); n != 0 {
		t.Errorf("%d scripts on the page", n)
	}
	for _, e := range everything(page) {
		if e.name == "img" || e.attributes["onerror"] != "" {
			t.Errorf("a name became <%s>", e.name)
		}
	}
	visible := page.all("main", "")[0]
	for what, want := range map[string]string{"a server": script, "a load": image,
		"an error": end} {
		if !strings.Contains(visible.text(), want) {
			t.Errorf("%s is not on the page as it was written: %s", what, want)
		}
	}
	if !reflect.DeepEqual(reportOf(t, page), r) {
		t.Error("the report came back otherwise")
	}
}

func TestPageWithoutSectionsHasNone(t *testing.T) {
	page := takeApart(t, &measure.Report{Command: "make bench", Machine: measure.Machine{Cores: 1}})
	for _, name := range []string{"svg", "figure"} {
		if n := len(page.all(name, "")); n != 0 {
			t.Errorf("%d elements %s on an empty page", n, name)
		}
	}
	for _, e := range everything(page) {
		if id := e.attributes["id"]; slices.Contains([]string{"ahead", "profile", "tables",
			"failures"}, id) {
			t.Errorf("an empty page has a section %s", id)
		}
	}
}

func TestPageShowsWhatOnlyTheRawLimitMet(t *testing.T) {
	r := smallReport()
	r.Results = r.Results[:1]
	if rows := takeApart(t, r).all("tr", "result"); len(rows) != 1 ||
		!strings.Contains(rows[0].text(), "134,400") {
		t.Errorf("%d rows", len(rows))
	}
}

// Figures that no run should have, but that must not keep a report from being read.
func TestPlotsSurviveOddFigures(t *testing.T) {
	for _, v := range []float64{0, -1, 1e-9, 1e300, 5} {
		r := plausibleReport()
		for i := range r.Results {
			for k := range r.Results[i].Samples {
				s := &r.Results[i].Samples[k]
				s.RequestsPerSecond, s.P50, s.P99, s.ServerUser, s.ServerSystem, s.BytesPerSecond,
					s.StartSeconds = v, v, v, v, v, v, v
			}
			r.Results[i].Median = measure.MedianSample(r.Results[i].Samples)
		}
		page := takeApart(t, r)
		if rows := page.all("tr", "result"); len(rows) != len(r.Results) {
			t.Errorf("%g: %d rows for %d results", v, len(rows), len(r.Results))
		}
		for _, e := range everything(page.all("main", "")[0]) {
			drawn := e.attributes["d"] + e.attributes["style"] + e.attributes["transform"] +
				e.attributes["x"] + e.attributes["y"]
			if strings.Contains(drawn, "NaN") || strings.Contains(drawn, "Inf") ||
				strings.Contains(drawn, "ZgotmplZ") {
				t.Fatalf("%g: drawn as %s", v, drawn)
			}
		}
	}
}

func TestNumbersInPlotsAreShort(t *testing.T) {
	for v, want := range map[float64]string{0.4567: "0.46", 3.789: "3.79", 36.04: "36.0",
		99.97: "100", 5678: "5678", 9999.4: "9999", 9999.6: "10.0k", 118075: "118k",
		999.6e3: "1.00M", 1.42e6: "1.42M"} {
		if got := shortNumber(v); got != want {
			t.Errorf("shortNumber(%v) = %s, want %s", v, got, want)
		}
	}
	for v, want := range map[float64]string{0.5: "0.50 µs", 94.46: "94.5 µs", 999.4: "999 µs",
		1500: "1.50 ms", 2.5e6: "2.50 s"} {
		if got := shortTime(v); got != want {
			t.Errorf("shortTime(%v) = %s, want %s", v, got, want)
		}
	}
	for s, want := range map[string]string{"2.00 ms": "2 ms", "10.0k": "10k", "1.50": "1.5",
		"100": "100", "0.50 µs": "0.5 µs", "1.00M": "1M"} {
		if got := trimZeros(s); got != want {
			t.Errorf("trimZeros(%q) = %q, want %q", s, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0", 0.0738: "0.0738", 3.789: "3.79", 36.04: "36.0",
		1234567.8: "1,234,568", -1234: "-1,234", 999: "999"} {
		if got := digits(v); got != want {
			t.Errorf("digits(%v) = %s, want %s", v, got, want)
		}
	}
}

func TestDistinguishNamesOnlyWhatVaries(t *testing.T) {
	l := measure.Load{Section: "disk", Pattern: "randread", BlockSize: 4096, Depth: 32,
		Connections: 1, Transport: measure.Unix, Backend: measure.File}
	m := l
	m.Connections, m.Transport = 4, measure.TCP
	common, own := distinguish([]measure.Load{l, m})
	if common != "randread, 4 KiB, file" ||
		!slices.Equal(own, []string{"1 × 32, unix", "4 × 32, tcp"}) {
		t.Errorf("distinguish = %q, %q", common, own)
	}
	if common,
		own = distinguish([]measure.Load{l}); common != "randread, 4 KiB, 1 × 32, file, unix" ||
		own[0] != "" {
		t.Errorf("of one load, distinguish = %q, %q", common, own)
	}
}

func TestPlotsSayWhatFailedAndWhatFellBehind(t *testing.T) {
	r := plausibleReport()
	idle := r.Section("idle")
	r.Result(idle[len(idle)-1], "nbdkit").Median.Backlog = 1 << 20
	main := takeApart(t, r).all("main", "")[0]
	if want := "qemu-nbd failed at 1000."; strings.Count(main.text(), want) != 4 {
		t.Errorf("not four plots say %q", want)
	}
	for _, f := range main.all("figure", "") {
		title := f.all("figcaption", "")[0].text()
		hollow := f.all("div", "hollow")
		if idle := strings.Contains(title, "20k/s") && strings.Contains(f.text(),
			"1,000 idle connections"); idle != (len(hollow) == 1 &&
			strings.Contains(hollow[0].text(), "nbdkit")) {
			t.Errorf("%s: %d bars are hollow", title, len(hollow))
		}
	}
}
