// What the suite asks a server before the first check.
//
// Invariant: a server that answers one question wrongly is still asked the others; what went wrong is kept in Facts.Problems, and is the checks' to judge.

package conform

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ringnbd/proto"
)

var errEarly = errors.New("interrupted before the first check")

// learn fills in the facts. It fails only if there is no NBD server at all, or if ctx ends; what a server answers wrongly is for the checks to show.
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
	for _, question := range []func(){t.learnList, t.learnPlain, t.learnNames, t.learnRich, t.learnMeta, t.learnExtended, t.learnProbe} {
		t.deadline = time.Now().Add(t.patience)
		problem := t.Try(question)
		t.closeAll()
		switch {
		case ctx.Err() != nil:
			return errEarly
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
		c = t.Open(ModeExportName)
	}
	f.Size, f.FlagsPlain, f.Flags = c.Size, c.Flags, c.Flags
	t.Want(len(problems) == 0, "%s", join(problems))
}

func (t *T) learnInfo() {
	c := t.Haggle()
	list := c.Option(proto.OptInfo, InfoData(t.target.Export, proto.InfoBlockSize, proto.InfoDescription))
	if t.facts.Go = list[len(list)-1].Type != proto.RepErrUnsup; !t.facts.Go {
		return
	}
	info := c.Infos(list)
	t.facts.Block = info.Block
	if info.Description != nil {
		t.facts.Description = *info.Description
	}
}

// learnGo takes a GO that is refused, or not answered to the end, for none: most checks would be about that instead of what they are about.
func (t *T) learnGo() *Conn {
	c := t.Haggle()
	var list []OptionReply
	problem := t.Try(func() { list = c.Option(proto.OptGo, InfoData(t.target.Export, proto.InfoBlockSize)) })
	if problem == "" && list[len(list)-1].Failed() {
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
	if t.facts.Structured = c.Final(proto.OptStructuredReply, nil).Type == proto.RepAck; t.facts.Structured && t.facts.Go {
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
	for _, r := range list[:len(list)-1] {
		t.facts.Contexts = append(t.facts.Contexts, string(r.Data[4:]))
	}
	if t.facts.Structured && t.facts.Meta {
		c.SetContexts(t.target.Export, proto.ContextAllocation)
		t.facts.Allocation = len(c.Contexts) == 1
	}
}

func (t *T) learnExtended() {
	c := t.Haggle()
	if t.facts.Extended = c.Final(proto.OptExtendedHeaders, nil).Type == proto.RepAck; !t.facts.Extended {
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
