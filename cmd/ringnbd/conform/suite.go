// A run of the suite: the server brought up, the facts found, each check run by itself, the server
// proven alive after each.
//
// Invariant: whatever a check does - end, panic, hang - it has exactly one result, and the next
// check begins with no connection of it left open.

package conform

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"ringnbd/engine/client"
	"ringnbd/proto"
)

// quiet is how long the suite listens for bytes that should not come. A server that is slower with
// them goes unnoticed; none is accused wrongly.
const quiet = 15 * time.Millisecond

const (
	// DefaultTimeout is how long a check may take.
	DefaultTimeout = 10 * time.Second
	// DefaultSize is that of the scratch image, in bytes: sparse, with more than twice any server's
	// maximum payload that was seen behind 4 GiB, so that offsets need more than 32 bits.
	DefaultSize = 4<<30 + 192<<20
)

// Target is where a server is. The suite shares the URIs with the rest of ringnbd, and nothing that
// judges a server.
type Target = client.Target

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
	Version  string // of the program, for the report
}

// Report is what came out of a run.
type Report struct {
	Version string          `json:"version"` // of the suite's program
	Server  string          `json:"server"`  // URI or command
	Profile *Profile        `json:"facts"`
	Counts  map[Verdict]int `json:"counts"`
	Results []Result        `json:"results"`
}

// suite is a run in progress.
type suite struct {
	config   *Config
	facts    *Profile
	main     *server // nil with a Target
	readOnly *server
	target   Target
	spare    Target // with a read-only export
	wrong    error  // why the run means nothing: it is not the server's fault
	gone     string // why nothing more can be asked of a server that we did not start
}

// goneReason begins the reason of the skips behind a check that a server did not survive.
const goneReason = "the server is gone since "

// Run runs the checks. The error is about the suite's own work: no server, no image. A run that ctx
// ends early gives a report of what was done, and an error.
func Run(ctx context.Context, config Config) (report *Report, err error) {
	s := &suite{config: &config, facts: &Profile{}}
	defer func() { err = errors.Join(err, s.down()) }()
	if err := s.up(ctx); err != nil {
		return nil, err
	}
	report = &Report{Version: config.Version, Server: config.Target.Text, Profile: s.facts,
		Counts: map[Verdict]int{}}
	if config.Spawn != "" {
		report.Server = config.Spawn
	}
	for i := range config.Checks {
		if ctx.Err() != nil {
			return report, fmt.Errorf("interrupted after %d of %d checks", i, len(config.Checks))
		}
		r := s.check(ctx, &config.Checks[i])
		if s.wrong != nil {
			return nil, s.wrong
		}
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
		if s.main, err = newServer(c.Spawn, c.Export, c.Size, c.Timeout); err != nil {
			return err
		}
		if s.target, err = s.main.start(ctx); err != nil {
			return err
		}
		s.facts.Spawned, s.facts.Image, s.facts.group = true, s.main.image, s.main.keeper.group()
	}
	if c.SpawnReadOnly != "" {
		if s.readOnly, err = newServer(c.SpawnReadOnly, c.Export, c.Size, c.Timeout); err != nil {
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
	if s.facts.Size == 0 && len(s.facts.Problems) == 0 {
		return errors.New("the export is empty: nearly every check reads of it; name one with " +
			"some bytes")
	}
	s.decide(ctx)
	return nil
}

// decide says what may be written, and where a read-only export is.
func (s *suite) decide(ctx context.Context) {
	f := s.facts
	isReadOnly := f.FlagsPlain&proto.FlagReadOnly != 0
	f.Writable = (s.config.Writable || f.Image != "") && !isReadOnly && f.Size >= minSize
	f.Pattern = f.Image != "" && f.Size == uint64(s.config.Size)
	if isReadOnly && s.spare.Network == "" {
		s.spare = s.target
	}
	f.ReadOnly = s.spare.Network != ""
	f.ReadOnlyChange = s.readOnly != nil && s.readOnly.image != "" ||
		s.readOnly == nil && isReadOnly && (s.config.Writable || f.Image != "")
	if !f.Writable || f.Pattern {
		return
	}
	t := s.newT()
	t.deadline = time.Now().Add(6 * t.patience)
	defer context.AfterFunc(ctx, t.stop)()
	defer t.closeAll()
	problem := t.try(t.layExport)
	if f.Pattern = problem == ""; !f.Pattern {
		f.Problems = append(f.Problems,
			"the suite's data could not be written to the export: "+problem)
	}
}

func (s *suite) newT() *trial {
	return &trial{profile: s.facts, target: s.target, readOnly: s.spare, patience: s.config.Timeout,
		deadline: time.Now().Add(s.config.Timeout)}
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
		if !n.met(s.facts) {
			return Skip, "needs " + n.name
		}
	}
	t := s.newT()
	verdict, detail := t.run(c)
	t.closeAll()
	problem := s.alive(ctx, c.ID)
	if problem == "" {
		return verdict, detail
	}
	if verdict == Fail {
		problem = detail + "; then " + problem
	}
	return Fail, problem
}

// run runs a check in a goroutine of its own, for at most its time and a little more.
func (t *trial) run(c *Check) (Verdict, string) {
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
	case <-time.After(t.left() + 2*time.Second):
	}
	t.closeAll()
	select {
	case e := <-done:
		return e.judge(t.differs)
	case <-time.After(2 * time.Second):
		return Fail, fmt.Sprintf("the check did not end within %v", t.patience)
	}
}

// judge brings a check's end and the deviations that it noted together. What was seen before a skip
// was seen all the same.
func (e ended) judge(differs []string) (Verdict, string) {
	switch {
	case e.verdict == Fail || len(differs) == 0:
		return e.verdict, e.detail
	case e.detail == "":
		return Differs, join(differs)
	}
	return Differs, join(differs) + "; " + e.detail
}

// alive proves that both servers still talk to new connections, after the check id.
func (s *suite) alive(ctx context.Context, id string) string {
	same := s.spare == s.target
	problem := s.aliveAt(ctx, s.main, &s.target, "the server")
	switch {
	case problem != "" && s.main == nil:
		s.gone = id
	case same:
		s.spare = s.target
	}
	if s.readOnly == nil || s.gone != "" {
		return problem
	}
	if second := s.aliveAt(ctx, s.readOnly, &s.spare, "the read-only server"); problem == "" {
		return second
	} else if second != "" {
		problem += "; " + second
	}
	return problem
}

// aliveAt proves it of one server; if it is ours (not nil), and does not, it is started again,
// which may change its target.
func (s *suite) aliveAt(ctx context.Context, ours *server, target *Target, name string) string {
	t := s.newT()
	problem := t.try(func() { t.dialAt(*target).banner() })
	t.closeAll()
	if ours == nil {
		if problem != "" {
			problem = name + " takes no new connection: " + problem
		}
		return problem
	}
	if problem != "" { // its sockets are gone before its end is told
		select {
		case <-ours.ended:
		case <-time.After(time.Second):
		}
	}
	died := ours.died()
	switch {
	case problem == "" && died == "":
		return ""
	case problem == "" && ours.succeeded():
		s.wrong = fmt.Errorf("%s: %w", ours.template, errBackground)
		return ""
	}
	if died != "" {
		problem = name + " died: " + died
	} else {
		problem = name + " takes no new connection (" + problem + ") and was started again" +
			ours.stderr.Words()
	}
	again, err := ours.start(ctx)
	if err != nil {
		s.gone = name + " could not be started again: " + err.Error()
		return problem + "; " + s.gone
	}
	*target = again
	if ours == s.main {
		s.facts.group = ours.keeper.group()
	}
	return problem
}

func (s *suite) lastWords() error {
	if s.main == nil || s.main.stderr.Words() == "" {
		return nil
	}
	return errors.New(strings.TrimPrefix(s.main.stderr.Words(), "; "))
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
