// What is known about an export.
//
// Invariant: a Catalog and the exports in it never change: a server whose exports change makes
// another Catalog, and each conversation keeps the Catalog with which it began, so that its LIST,
// INFO and GO agree. An index means something in its own Catalog only, so none leaves a
// conversation: what does is the Export, with its ID. Facts holds no pointer, so that the data path
// may keep copies of it.

package proto

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Facts is what Check needs to know about an export to judge a request.
type Facts struct {
	Size       uint64 // bytes, at most 2^63-1
	MinBlock   uint32 // bytes, power of two up to 64 KiB; 0 means 1
	MaxPayload uint32 // bytes of one READ or WRITE; 0 means DefaultMaxPayload
	Flags      uint16 // transmission flags
}

// payloadLimit returns the length of the longest READ or WRITE in bytes. Commands without data on
// the wire may be longer: a TRIM as long as the disk ("Block size constraints").
func (f *Facts) payloadLimit() uint64 {
	if f.MaxPayload == 0 {
		return DefaultMaxPayload
	}
	return uint64(f.MaxPayload)
}

// Export is what the negotiation tells clients about an export.
type Export struct {
	Facts
	// ID is the server's own number of the export, 0 if it has none. It is never on the wire.
	// Unlike an index and a name, it must not be given to another export later.
	ID          uint64
	Name        string // UTF-8, no NUL, at most MaxString bytes; "" is the default export
	Description string // the same limits
	// PreferredBlock is in bytes, a power of two; 0 means DefaultPreferred, or MinBlock if that is
	// more.
	PreferredBlock uint32
	// Contexts are the meta contexts that clients may select, at most MaxContexts. The number of a
	// context on the wire is its index here, plus 1.
	Contexts []Context
}

// Context is a meta context of an export ("Metadata querying").
type Context struct {
	Name string // namespace, colon, leaf
	Wide bool   // its status needs 64 bits, so that only extended headers can carry it
}

// flags returns the transmission flags of the export in this session: always HAS_FLAGS, FAST_ZERO
// only together with WRITE_ZEROES, nothing that was not negotiated ("Transmission flags").
func (e *Export) flags(s Session) uint16 {
	flags := (e.Flags|FlagHasFlags)&^negotiated | s.flags()
	if flags&FlagSendWriteZeroes == 0 {
		flags &^= FlagSendFastZero
	}
	return flags
}

// blockSizes returns minimum block, preferred block and maximum payload for INFO_BLOCK_SIZE, in
// bytes.
func (e *Export) blockSizes() (minBlock, preferred, maxPayload uint32) {
	minBlock, preferred = max(e.MinBlock, 1), e.PreferredBlock
	if preferred == 0 {
		preferred = max(DefaultPreferred, minBlock)
	}
	return minBlock, preferred, uint32(e.payloadLimit())
}

// Validate returns what is wrong with an export, in one line that ends in what to do, or nil. It
// must be called when the configuration is read: the negotiation does not check exports again.
func (e *Export) Validate() error {
	minBlock, preferred, maxPayload := e.blockSizes()
	switch {
	case !ValidString(e.Name):
		return errors.New("export name " + quote(e.Name) +
			": must be UTF-8 without NUL and at most 4096 bytes; choose another name")
	case !ValidString(e.Description):
		return e.wrong("description must be UTF-8 without NUL and at most 4096 bytes; shorten it")
	case e.Size > 1<<63-1:
		return e.wrong("size is beyond 2^63-1 bytes; choose a smaller one")
	case minBlock&(minBlock-1) != 0 || minBlock > 64<<10:
		return e.wrong("minimum block of " + strconv.Itoa(int(minBlock)) +
			" bytes is not a power of two up to 65536; choose one")
	case preferred&(preferred-1) != 0 || preferred < max(minBlock, 512):
		return e.wrong("preferred block of " + strconv.Itoa(int(preferred)) +
			" bytes is not a power of two, or less than the minimum block or 512; " +
			"choose a larger one")
	case maxPayload < preferred:
		return e.wrong("maximum payload of " + strconv.FormatUint(uint64(maxPayload), 10) +
			" bytes is less than the preferred block; choose a larger one")
	case e.Size%uint64(minBlock) != 0:
		return e.wrong("size of " + strconv.FormatUint(e.Size, 10) +
			" bytes is not a multiple of the minimum block of " +
			strconv.Itoa(int(minBlock)) + "; resize the image or choose a smaller block")
	case len(e.Contexts) > MaxContexts:
		return e.wrong("has more than 32 meta contexts; remove some")
	case e.wrongContext() != "":
		return e.wrong("meta context " + quote(e.wrongContext()) +
			" is not a name with a namespace, or is there twice; choose another")
	case e.Flags&negotiated != 0:
		return e.wrong("transmission flags hold a flag that only a negotiation may set; " +
			"clear SEND_DF, SEND_RESIZE and BLOCK_STATUS_PAYLOAD")
	}
	return nil
}

// wrongContext returns the name of the first meta context that is malformed or repeated, or "".
func (e *Export) wrongContext() string {
	seen := make(map[string]bool, len(e.Contexts))
	for _, c := range e.Contexts {
		if !ValidString(c.Name) || strings.IndexByte(c.Name, ':') < 1 || seen[c.Name] {
			return c.Name
		}
		seen[c.Name] = true
	}
	return ""
}

// wrong returns an error about the export.
func (e *Export) wrong(what string) error {
	return errors.New("export " + quote(e.Name) + ": " + what)
}

// quote returns a name for a message: shortened, in quotes.
func quote(name string) string {
	return strconv.QuoteToGraphic(clip(name, 64))
}

// ValidString reports whether s may be a string of the protocol: UTF-8, no NUL, at most MaxString
// bytes ("String values").
func ValidString(s string) bool {
	return len(s) <= MaxString && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// clip cuts s to at most limit bytes without splitting a character.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// Catalog is the exports as the negotiation sees them, at one moment. It must never change; several
// Negotiators may use it at the same time.
type Catalog interface {
	Len() int
	At(i int) Export                     // 0 <= i < Len
	Lookup(name string) (i int, ok bool) // "" looks up the default export
}

// Exports is a Catalog made of a list with an index of names.
type Exports struct {
	list   []Export
	byName map[string]int
}

// NewExports makes a catalog. The export of index primary is the default export, found also under
// ""; with primary < 0 there is no default unless an export has the name "". The error is about the
// first export that is not valid, or whose name is taken.
func NewExports(list []Export, primary int) (*Exports, error) {
	c := &Exports{list: append([]Export(nil), list...), byName: make(map[string]int, len(list)+1)}
	for i := range c.list {
		e := &c.list[i]
		if err := e.Validate(); err != nil {
			return nil, err
		}
		if _, taken := c.byName[e.Name]; taken {
			return nil, e.wrong("two exports have this name; rename one")
		}
		c.byName[e.Name] = i
	}
	if _, taken := c.byName[""]; !taken && primary >= 0 && primary < len(list) {
		c.byName[""] = primary
	}
	return c, nil
}

// Len returns the number of exports.
func (c *Exports) Len() int { return len(c.list) }

// At returns the export of index i.
func (c *Exports) At(i int) Export { return c.list[i] }

// Lookup finds an export by its exact name, or the default export by "".
func (c *Exports) Lookup(name string) (i int, ok bool) {
	i, ok = c.byName[name]
	return i, ok
}
