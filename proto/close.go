// Why a negotiation was closed.
//
// Invariant: the reasons are few and numbered without gaps, so that they can be counted.

package proto

// CloseReason is why the server closes a connection that is negotiating.
type CloseReason uint8

// The reasons. CloseReasons is how many there are, for the size of a table of counters.
const (
	CloseNone               CloseReason = iota
	CloseAbort                          // the client sent ABORT
	CloseClientFlags                    // unknown client flag
	CloseOptionMagic                    // an option that does not begin with IHAVEOPT
	CloseOptionLength                   // an option with more data than maxOptionDrain
	CloseOptionCount                    // too many options
	CloseExportName                     // EXPORT_NAME with a malformed name
	CloseExportUnknown                  // EXPORT_NAME of an export that does not exist
	CloseRefused                        // EXPORT_NAME refused by Admit or Refuse
	CloseExportNameExtended             // EXPORT_NAME after extended headers were agreed on
	CloseReasons            = iota
)

// String returns a short text for logs and counters.
func (r CloseReason) String() string {
	switch r {
	case CloseNone:
		return "none"
	case CloseAbort:
		return "abort"
	case CloseClientFlags:
		return "unknown client flags"
	case CloseOptionMagic:
		return "wrong option magic"
	case CloseOptionLength:
		return "option too long"
	case CloseOptionCount:
		return "too many options"
	case CloseExportName:
		return "bad export name"
	case CloseExportUnknown:
		return "unknown export"
	case CloseRefused:
		return "refused"
	case CloseExportNameExtended:
		return "export name with extended headers"
	}
	return "unknown"
}
