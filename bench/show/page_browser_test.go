// The page in a real browser: headless Chromium opens it as a reader would, at the width of a
// desk and of a telephone, in both colour schemes, and on paper, and measures what it drew. With
// `go test -artifacts`, pictures are kept.

package show

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"ringnbd/bench/judge"
	"ringnbd/bench/measure"
)

// browser starts Chromium with one tab; the test is skipped when there is none.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed (Debian package chromium)")
	}
	// t.Context ends before the browser can be closed
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()))
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil { // waits until the browser is gone
			t.Errorf("closing the browser: %v", err)
		}
		cancel()
	})
	return ctx
}

// complaints collects what the browser loads and complains of.
type complaints struct {
	mu       sync.Mutex
	loaded   []string
	messages []string
}

func (c *complaints) listen(event any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		c.loaded = append(c.loaded, e.Request.URL)
	case *runtime.EventExceptionThrown:
		c.messages = append(c.messages, e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		c.messages = append(c.messages,
			fmt.Sprintf("console.%s with %d arguments", e.Type, len(e.Args)))
	case *log.EventEntryAdded:
		c.messages = append(c.messages, e.Entry.Text)
	}
}

// looked is what the script below found.
type looked struct {
	Width, ScrollWidth       float64
	Plots, Figures           int
	Results, Failed, Errors  int
	Targets, Ahead, Programs int
	Texts                    int      // in plots
	SmallestText             float64  // in plots, pixels on the screen
	Outside                  []string // plots that leave the page
	Escaped                  []string // texts that leave their plot
	Overlaps                 []string // texts of a plot that lie on each other
	Pale                     []string // texts with too little contrast
	Checked                  int      // texts whose contrast was measured
	Background               string
}

// measurePage looks at everything on the page.
//
//go:embed testdata/measure.js
var measurePage string

// view is one way to look at the page.
type view struct {
	width  int64
	scheme string
	media  string
}

// paper is the width of a page of A4 with margins of 1 cm, in pixels.
const paper = 718

func TestPageInABrowser(t *testing.T) {
	r := plausibleReport()
	path := filepath.Join(t.TempDir(), "report.html")
	if err := HTML(r, path); err != nil {
		t.Fatal(err)
	}
	ctx := browser(t)
	var c complaints
	if err := chromedp.Listen(ctx, c.listen); err != nil {
		t.Fatal(err)
	}
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	if err != nil {
		t.Fatal(err)
	}
	backgrounds := map[string]string{}
	for _, v := range []view{{1280, "light", "screen"}, {390, "light", "screen"},
		{1280, "dark", "screen"}, {390, "dark", "screen"}, {paper, "dark", "print"}} {
		t.Run(fmt.Sprintf("%s %s at %d", v.scheme, v.media, v.width), func(t *testing.T) {
			found := v.look(t, ctx, path)
			found.judge(t, r)
			backgrounds[v.scheme+" "+v.media] = found.Background
		})
	}
	if backgrounds["light screen"] == backgrounds["dark screen"] {
		t.Errorf("both schemes have the background %s", backgrounds["light screen"])
	}
	if backgrounds["dark print"] != "rgb(255, 255, 255)" {
		t.Errorf("paper has the background %s", backgrounds["dark print"])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.messages) > 0 {
		t.Errorf("the browser complained: %s", strings.Join(c.messages, "; "))
	}
	for _, u := range c.loaded {
		if u != "file://"+path {
			t.Errorf("the page loaded %s", u)
		}
	}
	if len(c.loaded) == 0 {
		t.Error("the browser's requests were not seen: the test looks in the wrong place")
	}
}

// look opens the page and measures it.
func (v view) look(t *testing.T, ctx context.Context, path string) looked {
	t.Helper()
	media := emulation.SetEmulatedMediaParams{Media: v.media,
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: v.scheme}}}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(v.width, 900),
		chromedp.Navigate("file://"+path)); err != nil {
		t.Fatal(err)
	}
	found, err := chromedp.Run(ctx, chromedp.Evaluate[looked](measurePage))
	if err != nil {
		t.Fatal(err)
	}
	if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
		picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(t.ArtifactDir(),
			fmt.Sprintf("%s-%s-%d.png", v.media, v.scheme, v.width)), picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if found.Width != float64(v.width) {
		t.Errorf("the page is %g pixels wide, not %d", found.Width, v.width)
	}
	return found
}

// judge compares what was seen with the report.
func (f looked) judge(t *testing.T, r *measure.Report) {
	t.Helper()
	failed, partly := 0, 0
	for _, result := range r.Results {
		switch {
		case len(result.Samples) == 0:
			failed++
		case len(result.Errors) > 0:
			partly++
		}
	}
	plots := 1 // of the profiles
	for _, c := range (report{r}).page().Chapters {
		plots += len(c.Figures)
	}
	for _, n := range []struct {
		what      string
		got, want int
	}{{"plots", f.Plots, plots}, {"figures", f.Figures, plots}, {"results", f.Results,
		len(r.Results)}, {"failed results", f.Failed, failed},
		{"partly failed results", f.Errors, partly}, {"targets", f.Targets, len(judge.Targets(r))},
		{"ratios", f.Ahead, len(r.Section("disk"))},
		{"programs", f.Programs, len(r.Storage)}} {
		if n.got != n.want || n.want == 0 {
			t.Errorf("%d %s are on the page, %d in the report", n.got, n.what, n.want)
		}
	}
	if f.ScrollWidth > f.Width {
		t.Errorf("the page is %g pixels wide in a window of %g", f.ScrollWidth, f.Width)
	}
	if f.Texts < 100 || f.Checked < 1000 {
		t.Errorf("only %d texts in plots and %d on the page were looked at", f.Texts, f.Checked)
	}
	if f.SmallestText < 9 {
		t.Errorf("text in a plot is %.1f pixels high", f.SmallestText)
	}
	for what, list := range map[string][]string{"a plot leaves the page": f.Outside,
		"a text leaves its plot":  f.Escaped,
		"texts lie on each other": f.Overlaps, "a text is too pale": f.Pale} {
		for _, x := range list[:min(len(list), 8)] {
			t.Errorf("%s: %s", what, x)
		}
	}
}
