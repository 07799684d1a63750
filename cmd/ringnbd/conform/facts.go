// What the suite asks a server before the first check.
//
// Invariant: a server that answers one question wrongly is still asked the others; what went wrong
// is kept in Facts.Problems, and is the checks' to judge.

package conform

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ringnbd/proto"
)

var errEarly = errors.New("interrupted before the first check")

// learn fills in the facts. It fails only if there is no NBD server at all, or if ctx ends; what a
// server answers wrongly is for the checks to show.
func (t *T) learn(ctx context.Context) error {
	defer context.AfterFunc(ctx, t.stop)() // a server may keep silent at every question
	f := t.facts
	problem := t.Try(func() { f.Handshake = t.Haggle().Handshake })
	switch {
	case ctx.Err() != nil:
		return errEarly
	case problem != "":
		return fmt.Errorf("no conversation with the server at %s: %s", t.target.Address, problem)
	}
	f.Go, f.List = true, true // baseline, unless it is denied
	for _, question := range []func(){t.learnList, t.learnPlain, t.learnNames, t.learnRich,
		t.learnMeta, t.learnSet, t.learnExtended, t.learnProbe} {
		t.deadline = time.Now().Add(t.patience)
		problem := t.Try(question)
		t.closeAll()
		switch {
		case ctx.Err() != nil:
			return errEarly
		case f.closed != "":
			return errors.New(f.closed)
		case problem != "":
			f.Problems = append(f.Problems, problem)
		}
	}
	return nil
}

func (t *T) learnList() {
	list := t.Haggle().Option(proto.OptList, nil)
	t.facts.List = list[len(list)-1].Type == proto.RepAck
	for _, r := range list[:min(len(list)-1, 1000)] {
		name, _, err := proto.ParseServer(r.Data)
		t.Want(err == nil, "LIST: %v", err)
		t.facts.Names = append(t.facts.Names, name)
	}
}

// learnPlain asks INFO and GO, or settles for EXPORT_NAME.
func (t *T) learnPlain() {
	f := t.facts
	var c *Conn
	var problems []string
	for _, question := range []func(){t.learnInfo, func() { c = t.learnGo() }} {
		if !f.Go {
			break
		}
		t.deadline = time.Now().Add(t.patience)
		if problem := t.Try(question); problem != "" {
			problems = append(problems, problem)
		}
	}
	if c == nil {
		t.deadline = time.Now().Add(t.patience)
		if problem := t.Try(func() { c = t.Open(ModeExportName) }); problem != "" {
			t.cannotOpen(problem)
			t.Failf("%s", join(append(problems, problem)))
		}
	}
	f.Size, f.FlagsPlain, f.Flags = c.Size, c.Flags, c.Flags
	t.Want(len(problems) == 0, "%s", join(problems))
}

// noteDenial keeps that the server does not have the export, or not for us.
func (t *T) noteDenial(r OptionReply) {
	if r.Type == proto.RepErrUnknown || r.Type == proto.RepErrPolicy {
		t.facts.denial = r.String()
	}
}

// cannotOpen notes that there is nothing to check: the export was denied, and EXPORT_NAME, which
// cannot say why, had the problem as well.
func (t *T) cannotOpen(problem string) {
	f := t.facts
	if f.denial == "" {
		return
	}
	name := fmt.Sprintf("the export %q", t.target.Export)
	if t.target.Export == "" {
		name = "the default export, which has the empty name,"
	}
	f.closed = fmt.Sprintf("%s cannot be opened: the server says %s, and to EXPORT_NAME: %s", name,
		f.denial, problem)
	const most = 20
	switch names := f.Names[:min(len(f.Names), most)]; {
	case len(f.Names) > most:
		f.closed += fmt.Sprintf("; it lists %q and %d more: name one of them", names,
			len(f.Names)-most)
	case len(names) > 0:
		f.closed += fmt.Sprintf("; it lists %q: name one of them", names)
	}
	if len(f.Names) > 0 {
		f.closed += pick(f.Spawned, ", by --export", ", as in nbd://HOST/EXPORT")
	}
}

func (t *T) learnInfo() {
	c := t.Haggle()
	list := c.Option(proto.OptInfo,
		InfoData(t.target.Export, proto.InfoBlockSize, proto.InfoDescription))
	if t.facts.Go = list[len(list)-1].Type != proto.RepErrUnsup; !t.facts.Go {
		return
	}
	t.noteDenial(list[len(list)-1])
	info := c.Infos(list)
	t.facts.Block = info.Block
	if info.Description != nil {
		t.facts.Description = *info.Description
	}
}

// learnGo takes a GO that is refused, or not answered to the end, for none: most checks would be
// about that instead of what they are about.
func (t *T) learnGo() *Conn {
	c := t.Haggle()
	var list []OptionReply
	problem := t.Try(func() {
		list = c.Option(proto.OptGo, InfoData(t.target.Export, proto.InfoBlockSize))
	})
	if problem == "" && list[len(list)-1].Failed() {
		t.noteDenial(list[len(list)-1])
		problem = "it is answered by " + list[len(list)-1].String()
	}
	if t.facts.Go = problem == ""; !t.facts.Go {
		t.Failf("GO for the export %q: %s", t.target.Export, problem)
	}
	info := c.Infos(list)
	if t.facts.Block == nil {
		t.facts.Block = info.Block
	}
	c.Mode, c.Size, c.Flags, c.Block = ModeGo, info.Size, info.Flags, info.Block
	return c
}

// unknownName is no export's name.
const unknownName = "ringnbd-conform-no-such-export"

func (t *T) learnNames() {
	t.facts.AnyName = t.Haggle().Final(proto.OptInfo, InfoData(unknownName)).Type == proto.RepAck
}

func (t *T) learnRich() {
	c := t.Haggle()
	if t.facts.Structured = c.Final(proto.OptStructuredReply,
		nil).Type == proto.RepAck; t.facts.Structured && t.facts.Go {
		c.EnterGo(t.target.Export)
		t.facts.Flags = c.Flags
	}
}

func (t *T) learnMeta() {
	c := t.Haggle()
	if t.facts.Structured {
		c.Final(proto.OptStructuredReply, nil)
	}
	list := c.Option(proto.OptListMetaContext, ContextData(t.target.Export))
	t.facts.Meta = list[len(list)-1].Type == proto.RepAck
	t.facts.setMeta = t.facts.Meta
	for _, r := range list[:len(list)-1] {
		t.facts.Contexts = append(t.facts.Contexts, string(r.Data[4:]))
	}
}

// learnSet asks by itself: however LIST_META_CONTEXT was answered says nothing of what can be set.
func (t *T) learnSet() {
	if !t.facts.Structured {
		return
	}
	c := t.structured()
	t.facts.setMeta = c.SetContexts(t.target.Export,
		proto.ContextAllocation).Type != proto.RepErrUnsup
	t.facts.Allocation = len(c.Contexts) == 1
}

func (t *T) learnExtended() {
	c := t.Haggle()
	if t.facts.Extended = c.Final(proto.OptExtendedHeaders,
		nil).Type == proto.RepAck; !t.facts.Extended {
		return
	}
	c.Mode = ModeExtended
	if t.facts.Allocation {
		c.SetContexts(t.target.Export, proto.ContextAllocation)
	}
	c.EnterGo(t.target.Export)
	t.facts.FlagsExtended = c.Flags
}

// learnProbe reads the first bytes, by the simplest means.
func (t *T) learnProbe() {
	f := t.facts
	if f.Size == 0 {
		return // see up
	}
	f.probe = make([]byte, t.block())
	reply := t.Open(f.simplest()).Succeeds(Read(0, uint64(len(f.probe))))
	f.probe, f.probeKnown = reply.Data, true
}

// simplest is the mode in which the least can be wrong.
func (f *Facts) simplest() Mode {
	if f.Go {
		return ModeGo
	}
	return ModeExportName
}
