// The questions that the suite asks a server before the first check.
//
// Invariant: a server that answers one question wrongly is still asked the others; what went wrong
// is kept in Profile.Problems, and the checks judge it.

package conform

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ringnbd/proto"
)

var errEarly = errors.New("interrupted before the first check")

// learn fills in the profile. It fails only if there is no NBD server, if the export cannot be
// opened, or if ctx ends; the checks show wrong answers.
func (t *trial) learn(ctx context.Context) error {
	defer context.AfterFunc(ctx, t.stop)() // a server may leave every question unanswered
	p := t.profile
	problem := t.try(func() { p.Handshake = t.haggle().handshake })
	switch {
	case ctx.Err() != nil:
		return errEarly
	case problem != "":
		return fmt.Errorf("no conversation with the server at %s: %s", t.target.Address, problem)
	}
	p.Go, p.List = true, true // assumed until the server denies it
	for _, question := range []func(){t.learnList, t.learnPlain, t.learnNames, t.learnRich,
		t.learnMeta, t.learnSet, t.learnExtended, t.learnProbe} {
		t.deadline = time.Now().Add(t.patience)
		problem := t.try(question)
		t.closeAll()
		switch {
		case ctx.Err() != nil:
			return errEarly
		case p.closed != "":
			return errors.New(p.closed)
		case problem != "":
			p.Problems = append(p.Problems, problem)
		}
	}
	return nil
}

func (t *trial) learnList() {
	list := t.haggle().option(proto.OptList, nil)
	t.profile.List = list[len(list)-1].kind == proto.RepAck
	for _, r := range list[:min(len(list)-1, 1000)] {
		name, _, err := proto.ParseServer(r.data)
		t.want(err == nil, "LIST: %v", err)
		t.profile.Names = append(t.profile.Names, name)
	}
}

// learnPlain opens the export by INFO and GO, or else by EXPORT_NAME.
func (t *trial) learnPlain() {
	p := t.profile
	var c *conn
	var problems []string
	for _, question := range []func(){t.learnInfo, func() { c = t.learnGo() }} {
		if !p.Go {
			break
		}
		t.deadline = time.Now().Add(t.patience)
		if problem := t.try(question); problem != "" {
			problems = append(problems, problem)
		}
	}
	if c == nil {
		t.deadline = time.Now().Add(t.patience)
		if problem := t.try(func() { c = t.open(modeExportName) }); problem != "" {
			t.cannotOpen(problem)
			t.failf("%s", join(append(problems, problem)))
		}
	}
	p.Size, p.FlagsPlain, p.Flags = c.size, c.flags, c.flags
	t.want(len(problems) == 0, "%s", join(problems))
}

// noteDenial keeps a reply which says that the server does not have the export, or not for us.
func (t *trial) noteDenial(r optionReply) {
	if r.kind == proto.RepErrUnknown || r.kind == proto.RepErrPolicy {
		t.profile.denial = r.String()
	}
}

// cannotOpen notes that there is nothing to check: the export was denied, and EXPORT_NAME, which
// cannot say why, failed with the problem.
func (t *trial) cannotOpen(problem string) {
	p := t.profile
	if p.denial == "" {
		return
	}
	name := fmt.Sprintf("the export %q", t.target.Export)
	if t.target.Export == "" {
		name = "the default export, which has the empty name,"
	}
	p.closed = fmt.Sprintf("%s cannot be opened: the server says %s, and to EXPORT_NAME: %s",
		name, p.denial, problem)
	const maxNames = 20
	switch names := p.Names[:min(len(p.Names), maxNames)]; {
	case len(p.Names) > maxNames:
		p.closed += fmt.Sprintf("; it lists %q and %d more: name one of them",
			names, len(p.Names)-maxNames)
	case len(names) > 0:
		p.closed += fmt.Sprintf("; it lists %q: name one of them", names)
	}
	if len(p.Names) > 0 {
		p.closed += pick(p.Spawned, ", by --export", ", as in nbd://HOST/EXPORT")
	}
}

func (t *trial) learnInfo() {
	c := t.haggle()
	list := c.option(proto.OptInfo,
		infoData(t.target.Export, proto.InfoBlockSize, proto.InfoDescription))
	if t.profile.Go = list[len(list)-1].kind != proto.RepErrUnsup; !t.profile.Go {
		return
	}
	t.noteDenial(list[len(list)-1])
	info := c.parseInfos(list)
	t.profile.Block = info.block
	if info.description != nil {
		t.profile.Description = *info.description
	}
}

// learnGo counts a GO that is refused, or not answered to the end, as missing: otherwise maxNames
// checks would fail by it instead of showing their own rule.
func (t *trial) learnGo() *conn {
	c := t.haggle()
	var list []optionReply
	problem := t.try(func() {
		list = c.option(proto.OptGo, infoData(t.target.Export, proto.InfoBlockSize))
	})
	if problem == "" && list[len(list)-1].failed() {
		t.noteDenial(list[len(list)-1])
		problem = "it is answered by " + list[len(list)-1].String()
	}
	if t.profile.Go = problem == ""; !t.profile.Go {
		t.failf("GO for the export %q: %s", t.target.Export, problem)
	}
	info := c.parseInfos(list)
	if t.profile.Block == nil {
		t.profile.Block = info.block
	}
	c.mode, c.size, c.flags, c.block = modeGo, info.size, info.flags, info.block
	return c
}

// unknownName is a name that no export has.
const unknownName = "ringnbd-conform-no-such-export"

func (t *trial) learnNames() {
	t.profile.AnyName = t.haggle().finalReply(proto.OptInfo,
		infoData(unknownName)).kind == proto.RepAck
}

func (t *trial) learnRich() {
	c := t.haggle()
	if t.profile.Structured = c.finalReply(proto.OptStructuredReply,
		nil).kind == proto.RepAck; t.profile.Structured && t.profile.Go {
		c.enterGo(t.target.Export)
		t.profile.Flags = c.flags
	}
}

func (t *trial) learnMeta() {
	c := t.haggle()
	if t.profile.Structured {
		c.finalReply(proto.OptStructuredReply, nil)
	}
	list := c.option(proto.OptListMetaContext, contextData(t.target.Export))
	t.profile.Meta = list[len(list)-1].kind == proto.RepAck
	t.profile.setMeta = t.profile.Meta
	for _, r := range list[:len(list)-1] {
		t.profile.Contexts = append(t.profile.Contexts, string(r.data[4:]))
	}
}

// learnSet is a question of its own: the answer to LIST_META_CONTEXT does not say what can be set.
func (t *trial) learnSet() {
	if !t.profile.Structured {
		return
	}
	c := t.structured()
	t.profile.setMeta = c.setContexts(t.target.Export,
		proto.ContextAllocation).kind != proto.RepErrUnsup
	t.profile.Allocation = len(c.contexts) == 1
}

func (t *trial) learnExtended() {
	c := t.haggle()
	if t.profile.Extended = c.finalReply(proto.OptExtendedHeaders,
		nil).kind == proto.RepAck; !t.profile.Extended {
		return
	}
	c.mode = modeExtended
	if t.profile.Allocation {
		c.setContexts(t.target.Export, proto.ContextAllocation)
	}
	c.enterGo(t.target.Export)
	t.profile.FlagsExtended = c.flags
}

// learnProbe reads the first bytes, by the simplest means.
func (t *trial) learnProbe() {
	p := t.profile
	if p.Size == 0 {
		return // an empty export: see up
	}
	p.probe = make([]byte, t.block())
	reply := t.open(p.simplestMode()).succeeds(newRead(0, uint64(len(p.probe))))
	p.probe, p.probeKnown = reply.data, true
}
