// [ COMMAND... ] in place of a URI: a server that is started for as long as it is needed.
//
// Invariant: words between brackets belong to the command, whatever they look like. cobra and pflag
// see them as one word, joined by NULs, which no argument of a process can contain.

package main

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"ringnbd/cmd/ringnbd/activation"
)

const between = "\x00"

// joinBrackets makes one word of each command in brackets, for copy and info, which accept them.
func joinBrackets(args []string) ([]string, error) {
	if len(args) == 0 || args[0] != "copy" && args[0] != "info" {
		return args, nil
	}
	var list []string
	for i := 0; i < len(args); i++ {
		if args[i] == "]" {
			return nil,
				errors.New("] ends a command, and there is no [ before it, as a word of its own")
		}
		if args[i] != "[" {
			list = append(list, args[i])
			continue
		}
		n := slices.Index(args[i:], "]")
		switch {
		case n < 0:
			return nil,
				errors.New("[ begins a command, and there is no ] after it, as a word of its own")
		case n == 1:
			return nil, errors.New("[ ] has no command in it: write [ COMMAND ARGUMENT... ]")
		}
		list = append(list, strings.Join(args[i:i+n+1], between))
		i += n
	}
	return list, nil
}

// bracketCommand splits a word that joinBrackets made; nil means any other word.
func bracketCommand(word string) []string {
	words := strings.Split(word, between)
	if words[0] != "[" || len(words) < 3 {
		return nil
	}
	return words[1 : len(words)-1]
}

// withServers starts servers, calls do, and ends the servers, whether do succeeded or not.
func withServers(commands [][]string, do func([]*activation.Server) error) (err error) {
	var lock sync.Mutex
	var servers []*activation.Server
	defer onSecondSignal(func() {
		lock.Lock()
		defer lock.Unlock()
		for _, s := range servers {
			s.Kill()
		}
	})()
	defer func() {
		for _, s := range servers {
			err = s.Explain(err)
		}
		for _, s := range servers {
			err = errors.Join(err, s.End())
		}
	}()
	for _, words := range commands {
		s, err := activation.Start(words)
		if err != nil {
			return err
		}
		lock.Lock()
		servers = append(servers, s)
		lock.Unlock()
	}
	return do(servers)
}
