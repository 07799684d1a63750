// Sizes and kinds of JSON values, as people write them.
//
// Invariant: a size is a number of bytes, or a text with a unit as everywhere else in this program.

package control

import (
	"encoding/json"
	"reflect"
	"strconv"

	"ringnbd/engine/units"
)

// Size is a number of bytes: 1073741824 or "1GiB".
type Size uint64

// UnmarshalJSON reads a number, or a text with a unit.
func (s *Size) UnmarshalJSON(text []byte) error {
	word := string(text)
	if len(text) > 0 && text[0] == '"' {
		if err := json.Unmarshal(text, &word); err != nil {
			return err
		}
	} else if _, err := strconv.ParseUint(word, 10, 64); err != nil {
		return Wrong("", "%s is not a size; write bytes as a whole number, or a text: \"10GiB\"",
			word)
	}
	n, err := units.ParseSize(word)
	if err != nil {
		return Wrong("", "%v", err)
	}
	*s = Size(n)
	return nil
}

// kindName names a kind of value for people who write JSON.
func kindName(k reflect.Kind) string {
	switch k {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice:
		return "a list"
	}
	return "a number"
}
