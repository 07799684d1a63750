// Values of flags that several commands share: sizes, times and the format of images.
//
// Invariant: what a flag prints as its default is a value that it accepts.

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"ringnbd/engine/units"
)

// sizeFlag is a number of bytes, more than 0.
type sizeFlag uint64

func (f *sizeFlag) Type() string { return "SIZE" }
func (f *sizeFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(*f), 10)
}
func (f *sizeFlag) Set(text string) error {
	n, err := units.ParseSize(text)
	if err == nil && n == 0 {
		err = fmt.Errorf("size must be more than 0")
	}
	*f = sizeFlag(n)
	return err
}

// timeFlag is a duration, in seconds if it has no unit.
type timeFlag time.Duration

func (f *timeFlag) Type() string { return "TIME" }
func (f *timeFlag) String() string {
	text := time.Duration(*f).String()
	if *f == 0 {
		return "" // as for a flag without a default
	}
	if shorter, ok := strings.CutSuffix(text, "m0s"); ok {
		return shorter + "m"
	}
	return text
}
func (f *timeFlag) Set(text string) error {
	d, err := units.ParseDuration(text)
	*f = timeFlag(d)
	return err
}

// rawFlag is the word raw, the only format.
type rawFlag bool

func (f *rawFlag) Type() string   { return "FORMAT" }
func (f *rawFlag) String() string { return "" }
func (f *rawFlag) Set(text string) error {
	if text != "raw" {
		return fmt.Errorf("raw is the only format: images are used as they are (qemu-img convert " +
			"makes raw images)")
	}
	*f = true
	return nil
}
