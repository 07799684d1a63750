// Command ringnbd serves files and block devices over NBD (Network Block Device) through io_uring,
// and has clients that show, copy, load and check any NBD server.
//
// This package is the command line: it reads flags and arguments, calls the packages that do the
// work, and prints what they return. A file of a command carries the command's name.
//
//	main.go                 the command tree, exit statuses, errors in one line
//	help.go                 the help texts, which are files in help/
//	help_print.go           how help is laid out; flags in groups
//	mistakes.go             answers to mistakes that people make in a command line
//	advice.go               what a user can do about an error of the packages below
//	flag_types.go           sizes, times and formats as values of flags
//	bracket.go              [ COMMAND... ] in place of a URI
//	signals.go              which signals end a command, and how
//	leave.go                ending the process while storage hangs
//	room.go                 threads and address space, reserved before a command begins
//	term.go                 the terminal: its width and locale, text of others made visible
//	backlog.go              writing to standard error without waiting for a reader
//
//	serve.go                ringnbd serve: its parts, brought up in order
//	serve_flags.go          its flags
//	serve_exports.go        its arguments and --export
//	serve_config.go         --config, and the file that says what a command line says
//	serve_oldstyle.go       --oldstyle
//	serve_defaults.go       defaults of loops, connections and memory from the limits of the process
//	serve_room.go           open files and threads for the connections and loops
//	serve_start.go          a start that a signal can end
//	serve_shutdown.go       the end, in order or at once
//	serve_inforce.go        the configuration that is in force
//	serve_live.go           the exports of a running server, and who is changing which
//	serve_discard.go        overlays of single clients, which are thrown away
//	serve_overlay.go        overlays that are committed or dropped while the server runs
//	serve_change.go         changes to them: add, alter, replace, remove, flush
//	serve_resize.go         another size
//	serve_doors.go          addresses that are opened and closed at run time
//	serve_reload.go         SIGHUP: the configuration is read again
//	serve_control.go        --control: the server as its control socket sees it
//	serve_log.go            the log: levels, formats, what a start reports
//	serve_journal.go        the log of sessions and of disk errors, limited in rate
//	serve_debug.go          --debug: counters and profiles over HTTP
//	serve_debug_profile.go  bounds for profiles
//
//	ctl.go                  ringnbd ctl: a running server looked at and changed
//	ctl_show.go             what it prints
//
//	plan.go                 ringnbd plan: what a tree is made of
//	config.go               ringnbd config, whose work is in package config
//	config_system.go        what a machine lacks for a configuration
//
//	info.go                 ringnbd info, whose work is in package describe
//	copy.go                 ringnbd copy, whose work is in package transfer
//	bench.go                ringnbd bench, whose work is in ringnbd/bench/load
//	conform.go              ringnbd conform, whose work is in package conform
package main
