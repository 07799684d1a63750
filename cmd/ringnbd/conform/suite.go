// A run of the suite: the server is started, its profile taken, each check run by itself, and the
// server proven alive after each.
//
// Invariant: whatever a check does - end, panic, hang - it has exactly one result, and none of its
// connections is open when the next check begins.

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
// such bytes goes unnoticed; no server is accused wrongly.
const quiet = 15 * time.Millisecond

const (
	// DefaultTimeout is how long a check may take.
	DefaultTimeout = 10 * time.Second
	// DefaultSize is the size of the scratch image, in bytes. It is sparse. Offsets beyond 4 GiB
	// need more than 32 bits, and there is room for two of the largest maximum payloads seen.
	DefaultSize = 4<<30 + 192<<20
)

// Target is where a server is. The suite shares the URIs with the rest of ringnbd, but nothing that
// judges a server.
type Target = client.Target

// Config is the input of a run. Either Target is given, or Spawn.
type Config struct {
	Target   Target
	Writable bool // the data of Target may be overwritten

	Spawn         string // a command for the shell, with {port} or {socket}, {img} and {dir}
	SpawnReadOnly string // the same for a server with a read-only export
	Export        string // the export's name on the servers that are spawned
	Size          int64  // of the scratch image, bytes

	Checks   []Check
	Timeout  time.Duration // of a check
	Progress func(done, all int, r Result)
	Version  string // of the program, for the report
}

// Report is the outcome of a run.
type Report struct {
	Version string          `json:"version"` // of the suite's program
	Server  string          `json:"server"`  // URI or command
	Profile *Profile        `json:"facts"`
	Counts  map[Verdict]int `json:"counts"`
	Results []Result        `json:"results"`
}

// suite is a run in progress.
type suite struct {
	config         *Config
	profile        *Profile
	mainServer     *server // nil with a Target
	readOnlyServer *server
	target         Target
	readOnlyTarget Target // with a read-only export
	wrong          error  // why the run says nothing about the server
	gone           string // since when, or why, the server cannot be asked anything more
}

// goneReason begins the reason of the skips that follow a check that the server did not survive.
const goneReason = "the server is gone since "

// Run runs the checks. An error is about the suite's own work: no server, no image. A run that ctx
// ends early returns a report of what was done, and an error.
func Run(ctx context.Context, config Config) (report *Report, err error) {
	s := &suite{config: &config, profile: &Profile{}}
	defer func() { err = errors.Join(err, s.down()) }()
	if err := s.up(ctx); err != nil {
		return nil, err
	}
	report = &Report{Version: config.Version, Server: config.Target.Text, Profile: s.profile,
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

// up starts the servers and takes the profile.
func (s *suite) up(ctx context.Context) (err error) {
	c := s.config
	s.target = c.Target
	if c.Spawn != "" {
		if s.mainServer, err = newServer(c.Spawn, c.Export, c.Size, c.Timeout); err != nil {
			return err
		}
		if s.target, err = s.mainServer.start(ctx); err != nil {
			return err
		}
		s.profile.Spawned, s.profile.Image = true, s.mainServer.image
		s.profile.group = s.mainServer.keeper.group()
	}
	if c.SpawnReadOnly != "" {
		s.readOnlyServer, err = newServer(c.SpawnReadOnly, c.Export, c.Size, c.Timeout)
		if err != nil {
			return err
		}
		if s.readOnlyTarget, err = s.readOnlyServer.start(ctx); err != nil {
			return err
		}
	}
	s.profile.TCP = s.target.Network == "tcp"
	t := s.newTrial()
	defer t.closeAll()
	if err := t.learn(ctx); err != nil {
		return errors.Join(err, s.lastWords())
	}
	if s.profile.Size == 0 && len(s.profile.Problems) == 0 {
		return errors.New("the export is empty, and nearly every check reads from it; name an " +
			"export with data")
	}
	s.decide(ctx)
	return nil
}

// decide finds what may be written, and where a read-only export is.
func (s *suite) decide(ctx context.Context) {
	p := s.profile
	isReadOnly := p.FlagsPlain&proto.FlagReadOnly != 0
	p.Writable = (s.config.Writable || p.Image != "") && !isReadOnly && p.Size >= minSize
	p.Pattern = p.Image != "" && p.Size == uint64(s.config.Size)
	if isReadOnly && s.readOnlyTarget.Network == "" {
		s.readOnlyTarget = s.target
	}
	p.ReadOnly = s.readOnlyTarget.Network != ""
	p.ReadOnlyChange = s.readOnlyServer != nil && s.readOnlyServer.image != "" ||
		s.readOnlyServer == nil && isReadOnly && (s.config.Writable || p.Image != "")
	if !p.Writable || p.Pattern {
		return
	}
	t := s.newTrial()
	t.deadline = time.Now().Add(6 * t.patience)
	defer context.AfterFunc(ctx, t.stop)()
	defer t.closeAll()
	problem := t.try(t.layExport)
	if p.Pattern = problem == ""; !p.Pattern {
		p.Problems = append(p.Problems,
			"the suite's data could not be written to the export: "+problem)
	}
}

// newTrial returns a trial with the time of a check.
func (s *suite) newTrial() *trial {
	return &trial{
		profile: s.profile, target: s.target, readOnly: s.readOnlyTarget,
		patience: s.config.Timeout, deadline: time.Now().Add(s.config.Timeout),
	}
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
		if !n.met(s.profile) {
			return Skip, "needs " + n.name
		}
	}
	t := s.newTrial()
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

// run runs a check in a goroutine of its own, for the check's time and a little more at most.
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
				done <- ended{Fail,
					fmt.Sprintf("the check itself is broken: %v [%.600s]", e, where)}
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

// judge makes one result of how a check ended and of the deviations that it noted, which count even
// if a skip followed.
func (e ended) judge(differs []string) (Verdict, string) {
	switch {
	case e.verdict == Fail || len(differs) == 0:
		return e.verdict, e.detail
	case e.detail == "":
		return Differs, join(differs)
	}
	return Differs, join(differs) + "; " + e.detail
}

// alive proves, after the check id, that both servers still take new connections.
func (s *suite) alive(ctx context.Context, id string) string {
	same := s.readOnlyTarget == s.target
	problem := s.aliveAt(ctx, s.mainServer, &s.target, "the server")
	switch {
	case problem != "" && s.mainServer == nil:
		s.gone = id
	case same:
		s.readOnlyTarget = s.target
	}
	if s.readOnlyServer == nil || s.gone != "" {
		return problem
	}
	second := s.aliveAt(ctx, s.readOnlyServer, &s.readOnlyTarget, "the read-only server")
	if problem != "" && second != "" {
		return problem + "; " + second
	}
	return problem + second
}

// aliveAt proves that the server at target still takes new connections. If it does not and is one
// of ours (not nil), it is started again, which may change the target.
func (s *suite) aliveAt(ctx context.Context, ours *server, target *Target, name string) string {
	t := s.newTrial()
	problem := t.try(func() { t.dialAt(*target).banner() })
	t.closeAll()
	if ours == nil {
		if problem != "" {
			problem = name + " takes no new connection: " + problem
		}
		return problem
	}
	if problem != "" { // a process's sockets close before its end is reported
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
	if ours == s.mainServer {
		s.profile.group = ours.keeper.group()
	}
	return problem
}

// lastWords returns what the server printed last, nil if it printed nothing or is not ours.
func (s *suite) lastWords() error {
	if s.mainServer == nil || s.mainServer.stderr.Words() == "" {
		return nil
	}
	return errors.New(strings.TrimPrefix(s.mainServer.stderr.Words(), "; "))
}

// down ends the servers that the suite started.
func (s *suite) down() error {
	var list []error
	for _, server := range []*server{s.mainServer, s.readOnlyServer} {
		if server != nil {
			list = append(list, server.remove())
		}
	}
	return errors.Join(list...)
}
