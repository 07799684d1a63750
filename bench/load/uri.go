// Where the load goes: an NBD URI, or file:PATH. The words and their parser are those of all our
// clients.
//
// Invariant: there is one parser of NBD URIs, and it is not here.

package load

import nbd "ringnbd/engine/client"

// Target is what the load is put on.
type Target = nbd.Target

// ParseTarget reads nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH or file:PATH. The path
// of file: is taken literally.
func ParseTarget(text string) (Target, error) { return nbd.ParseTarget(text) }
