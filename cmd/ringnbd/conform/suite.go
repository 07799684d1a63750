// A run of the suite: the server brought up, the facts found, each check run by itself, the server proven alive after each.
//
// Invariant: whatever a check does - end, panic, hang - it has exactly one result, and the next check begins with no connection of it left open.

package conform

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// quiet is how long the suite listens for bytes that should not come. A server that is slower with them goes unnoticed; none is accused wrongly.
const quiet = 15 * time.Millisecond

const (
	// DefaultTimeout is how long a check may take.
	DefaultTimeout = 10 * time.Second
	// DefaultSize is that of the scratch image, in bytes: sparse, and more than twice any server's maximum payload that was seen.
	DefaultSize = 192 << 20
)

// Target is where a server is.
type Target struct {
	Text    string // as the user wrote it
	Network string // tcp or unix
	Address string // HOST:PORT, or a path
	Export  string // name; "" is the default export
}

// Config is what a run of the suite takes. Either Target is given, or Spawn.
type Config struct {
	Target   Target
	Writable bool // Target's data may be overwritten

	Spawn         string // a command for the shell, with {port} or {socket}, {img} and {dir}
	SpawnReadOnly string // the same for a server with a read-only export
	Export        string // of the servers that are spawned
	Size          int64  // of the scratch image, bytes

	Checks   []Check
	Timeout  time.Duration // of a check
	Progress func(done, all int, r Result)
}

// Report is what came out of a run.
type Report struct {
	Server  string          `json:"server"` // URI or command
	Facts   *Facts          `json:"facts"`
	Counts  map[Verdict]int `json:"counts"`
	Results []Result        `json:"results"`
}

// suite is a run in progress.
type suite struct {
	config   *Config
	facts    *Facts
	main     *server // nil with a Target
	readOnly *server
	target   Target
	spare    Target // with a read-only export
	gone     string // why nothing more can be asked of a server that we did not start
}

// goneReason begins the reason of the skips behind a check that a server did not survive.
const goneReason = "the server is gone since "

// Run runs the checks. The error is about the suite's own work: no server, no image. A run that ctx ends early gives a report of what was done, and
// an error.
func Run(ctx context.Context, config Config) (report *Report, err error) {
	s := &suite{config: &config, facts: &Facts{}}
	defer func() { err = errors.Join(err, s.down()) }()
	if err := s.up(ctx); err != nil {
		return nil, err
	}
	report = &Report{Server: config.Target.Text, Facts: s.facts, Counts: map[Verdict]int{}}
	if config.Spawn != "" {
		report.Server = config.Spawn
	}
	for i := range config.Checks {
		if ctx.Err() != nil {
			return report, fmt.Errorf("interrupted after %d of %d checks", i, len(config.Checks))
		}
		r := s.check(ctx, &config.Checks[i])
		report.Results = append(report.Results, r)
		report.Counts[r.Verdict]++
		if config.Progress != nil {
			config.Progress(i+1, len(config.Checks), r)
		}
	}
	return report, nil
}

// up brings the servers up and finds the facts.
func (s *suite) up(ctx context.Context) (err error) {
	c := s.config
	s.target = c.Target
	if c.Spawn != "" {
		if s.main, err = newServer(c.Spawn, c.Export, c.Size); err != nil {
			return err
		}
		if s.target, err = s.main.start(ctx); err != nil {
			return err
		}
		s.facts.Spawned, s.facts.Image = true, s.main.image
	}
	if c.SpawnReadOnly != "" {
		if s.readOnly, err = newServer(c.SpawnReadOnly, c.Export, c.Size); err != nil {
			return err
		}
		if s.spare, err = s.readOnly.start(ctx); err != nil {
			return err
		}
	}
	s.facts.TCP = s.target.Network == "tcp"
	t := s.newT()
	defer t.closeAll()
	if err := t.learn(ctx); err != nil {
		return errors.Join(err, s.lastWords())
	}
	s.decide(ctx)
	return nil
}

// decide says what may be written, and where a read-only export is.
func (s *suite) decide(ctx context.Context) {
	f := s.facts
	isReadOnly := f.FlagsPlain&readOnlyFlag != 0
	f.Writable = (s.config.Writable || f.Image != "") && !isReadOnly && f.Size >= leastSize
	f.Pattern = f.Image != "" && f.Size == uint64(s.config.Size)
	if isReadOnly && s.spare.Network == "" {
		s.spare = s.target
	}
	f.ReadOnly = s.spare.Network != ""
	f.ReadOnlyChange = s.readOnly != nil && s.readOnly.image != "" || s.readOnly == nil && isReadOnly && (s.config.Writable || f.Image != "")
	if !f.Writable || f.Pattern {
		return
	}
	t := s.newT()
	t.deadline = time.Now().Add(6 * t.patience)
	defer context.AfterFunc(ctx, t.stop)()
	defer t.closeAll()
	problem := t.Try(t.layExport)
	if f.Pattern = problem == ""; !f.Pattern {
		f.Problems = append(f.Problems, "the suite's data could not be written to the export: "+problem)
	}
}

func (s *suite) newT() *T {
	return &T{facts: s.facts, target: s.target, readOnly: s.spare, patience: s.config.Timeout, deadline: time.Now().Add(s.config.Timeout)}
}

// check runs one check to its result.
func (s *suite) check(ctx context.Context, c *Check) Result {
	begin := time.Now()
	r := Result{ID: c.ID, Level: c.Level, Title: c.Title, Why: c.Why}
	r.Verdict, r.Detail = s.verdict(ctx, c)
	r.Took = time.Since(begin)
	return r
}

func (s *suite) verdict(ctx context.Context, c *Check) (Verdict, string) {
	if s.gone != "" {
		return Skip, goneReason + s.gone
	}
	for _, n := range c.Needs {
		if !n.Met(s.facts) {
			return Skip, "needs " + n.Name
		}
	}
	t := s.newT()
	verdict, detail := t.run(c)
	t.closeAll()
	problem := s.alive(ctx)
	if problem == "" {
		return verdict, detail
	}
	if verdict == Fail {
		problem = detail + "; then " + problem
	}
	if s.main == nil {
		s.gone = c.ID
	}
	return Fail, problem
}

// run runs a check in a goroutine of its own, for at most its time and a little more.
func (t *T) run(c *Check) (Verdict, string) {
	done := make(chan ended, 1)
	go func() {
		defer func() {
			switch e := recover().(type) {
			case nil:
			case ended:
				done <- e
			default:
				where := strings.Join(strings.Fields(string(debug.Stack())), " ")
				done <- ended{Fail, fmt.Sprintf("the check itself broke: %v [%.600s]", e, where)}
			}
		}()
		c.Run(t)
		done <- ended{verdict: Pass}
	}()
	select {
	case e := <-done:
		return e.judge(t.differs)
	case <-time.After(t.Left() + 2*time.Second):
	}
	t.closeAll()
	select {
	case e := <-done:
		return e.judge(t.differs)
	case <-time.After(2 * time.Second):
		return Fail, fmt.Sprintf("the check did not end within %v", t.patience)
	}
}

// judge brings a check's end and the deviations that it noted together.
func (e ended) judge(differs []string) (Verdict, string) {
	if e.verdict == Pass && len(differs) > 0 {
		return Differs, join(differs)
	}
	return e.verdict, e.detail
}

// alive proves that the server still talks to new connections; a server of ours that does not is started again.
func (s *suite) alive(ctx context.Context) (problem string) {
	t := s.newT()
	problem = t.Try(func() { t.Dial().banner() })
	t.closeAll()
	if s.main == nil {
		if problem != "" {
			problem = "the server takes no new connection: " + problem
		}
		return problem
	}
	died := s.main.died()
	if problem == "" && died == "" {
		return ""
	}
	if died != "" {
		problem = "the server died: " + died
	} else {
		problem = "the server takes no new connection (" + problem + ") and was started again" + s.main.words()
	}
	target, err := s.main.start(ctx)
	if err != nil {
		s.gone = "it could not be started again: " + err.Error()
		return problem + "; " + s.gone
	}
	if s.spare == s.target {
		s.spare = target
	}
	s.target = target
	return problem
}

func (s *suite) lastWords() error {
	if s.main == nil || s.main.words() == "" {
		return nil
	}
	return errors.New(strings.TrimPrefix(s.main.words(), "; "))
}

// down ends the servers that the suite started.
func (s *suite) down() error {
	var list []error
	for _, server := range []*server{s.main, s.readOnly} {
		if server != nil {
			list = append(list, server.remove())
		}
	}
	return errors.Join(list...)
}
