// The needs of checks, by name.
//
// Invariant: needs are about the server's profile, or about how the suite was started; no need asks
// the server anything.

package conform

import "ringnbd/proto"

// What a server may offer.
var (
	needFixed      = needHandshake("fixed newstyle (FIXED_NEWSTYLE)", proto.FlagFixedNewstyle)
	needNoZeroes   = needHandshake("the handshake flag NO_ZEROES", proto.FlagNoZeroes)
	needGo         = need{"NBD_OPT_GO", func(p *Profile) bool { return p.Go }}
	needList       = need{"NBD_OPT_LIST", func(p *Profile) bool { return p.List }}
	needStructured = need{"structured replies", func(p *Profile) bool { return p.Structured }}
	needExtended   = need{"extended headers", func(p *Profile) bool { return p.Extended }}
	needMeta       = need{"meta contexts", func(p *Profile) bool { return p.Meta }}
	needBlockSize  = need{"block size information", func(p *Profile) bool { return p.Block != nil }}
	needTCP        = need{"TCP", func(p *Profile) bool { return p.TCP }}

	needFlush     = needFlag("SEND_FLUSH", proto.FlagSendFlush)
	needFUA       = needFlag("SEND_FUA", proto.FlagSendFUA)
	needTrim      = needFlag("SEND_TRIM", proto.FlagSendTrim)
	needZeroes    = needFlag("SEND_WRITE_ZEROES", proto.FlagSendWriteZeroes)
	needDF        = needFlag("SEND_DF", proto.FlagSendDF)
	needCache     = needFlag("SEND_CACHE", proto.FlagSendCache)
	needFastZero  = needFlag("SEND_FAST_ZERO", proto.FlagSendFastZero)
	needMultiConn = needFlag("CAN_MULTI_CONN", proto.FlagCanMultiConn)

	needContexts = need{
		"the context base:allocation",
		func(p *Profile) bool { return p.Allocation },
	}
	needPayload = need{
		"BLOCK_STATUS_PAYLOAD",
		func(p *Profile) bool { return p.FlagsExtended&proto.FlagBlockStatusPayload != 0 },
	}
	needNames = need{
		"a server that refuses names that it does not know",
		func(p *Profile) bool { return !p.AnyName },
	}
	needByteUnit = need{
		"a minimum block size of 1",
		func(p *Profile) bool { return p.minBlock() == 1 },
	}
	needBlocks = need{
		"a minimum block size of more than 1",
		func(p *Profile) bool { return p.minBlock() > 1 },
	}
)

// What depends on how the suite was started as well.
var (
	needWrite = need{
		"permission to write (--writable, or --spawn) to an export that can be written and has " +
			"32 MiB or more",
		func(p *Profile) bool { return p.Writable },
	}
	needPattern = need{
		"the suite's own data in the export (--writable, or --spawn)",
		func(p *Profile) bool { return p.Pattern },
	}
	needReadOnly = need{
		"a read-only export (--spawn-read-only, or an export that is read-only)",
		func(p *Profile) bool { return p.ReadOnly },
	}
	needReadOnlyChange = need{
		"permission to try changes on the read-only export (--writable, or {img} in the command " +
			"that starts it)",
		func(p *Profile) bool { return p.ReadOnly && p.ReadOnlyChange },
	}
	needImage = need{
		"access to the image that the server serves (--spawn with {img})",
		func(p *Profile) bool { return p.Image != "" },
	}
)

// needHandshake returns the need of a handshake flag.
func needHandshake(name string, bit uint16) need {
	return need{name, func(p *Profile) bool { return p.Handshake&bit != 0 }}
}

// needFlag returns the need of a transmission flag.
func needFlag(name string, bit uint16) need {
	return need{name, func(p *Profile) bool { return p.Flags&bit != 0 }}
}
