// Sizes as people write them. A bare number is bytes; units are binary however they are spelled (10G, 10GB and 10GiB are the same), because a disk
// whose size depends on an "i" is a trap.
//
// Invariant: a size that is returned fits in 63 bits (the largest file offset of Linux), exactly as written.

package backing

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// ParseSize reads a size in bytes: "1048576", "512MiB", "10G", "1.5T". Zero is a size; the caller knows whether it makes sense.
func ParseSize(text string) (uint64, error) {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && n <= math.MaxInt64 {
		return n, nil // not by way of a float, which is exact only up to 2^53
	}
	if strings.HasPrefix(text, "-") {
		return 0, fmt.Errorf("size %q is negative", text)
	}
	n, err := units.RAMInBytes(text)
	if err != nil {
		return 0, fmt.Errorf("size %q is not understood; write bytes or a number with a unit, like 10G or 512MiB", text)
	}
	// The conversion from a float that is too large ends at the lowest or the highest integer, depending on the processor.
	if n < 0 || n == math.MaxInt64 {
		return 0, fmt.Errorf("size %q is too large; the limit is 8 EiB", text)
	}
	return uint64(n), nil
}
