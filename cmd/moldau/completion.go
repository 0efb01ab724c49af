package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

func completion() command {
	return command{name: "completion", summary: "print a completion script: bash, zsh or fish", run: func(_ context.Context, args []string, std streams) error {
		if len(args) != 1 || scripts()[args[0]] == "" {
			return usageError{errors.New("name a shell: bash, zsh or fish; then, for bash: source <(moldau completion bash)")}
		}
		fmt.Fprint(std.out, scripts()[args[0]])
		return nil
	}}
}

// scripts ask the program itself what may follow, so they need not be made anew for a new version.
func scripts() map[string]string {
	return map[string]string{
		"bash": `_moldau() { local IFS=$'\n'; COMPREPLY=($(moldau __complete "${COMP_WORDS[@]:1:COMP_CWORD}")); }
complete -o default -F _moldau moldau
`,
		"zsh": `#compdef moldau
_moldau() { local -a found; found=(${(f)"$(moldau __complete "${(@)words[2,CURRENT]}")"}); compadd -a found; (( $#found )) || _files }
compdef _moldau moldau
`,
		"fish": `complete -c moldau -f -a '(moldau __complete (commandline -opc)[2..-1] (commandline -ct))'
`,
	}
}

// complete prints what the last of the words may become.
func complete(words []string, out io.Writer) {
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	offer := func(s string) {
		if strings.HasPrefix(s, last) {
			fmt.Fprintln(out, s)
		}
	}
	if len(words) == 1 {
		for _, c := range commands() {
			offer(c.name)
		}
		return
	}
	for _, c := range commands() {
		if c.name != words[0] {
			continue
		}
		if len(words) == 2 {
			for _, v := range c.verbs {
				offer(v.name)
			}
		}
		if strings.HasPrefix(last, "-") {
			for _, name := range c.flagNames(words[1:]) {
				offer("-" + name)
			}
		}
	}
}

// flagNames returns the flags that may stand behind a command and its verb.
func (c command) flagNames(words []string) []string {
	f := flag.NewFlagSet(c.name, flag.ContinueOnError)
	if c.verbs == nil {
		if c.name != brokerCommand.name {
			return nil
		}
		(&brokerArgs{}).register(f)
	}
	for _, v := range c.verbs {
		if v.name == words[0] {
			v.register(f, &connection{})
		}
	}
	var names []string
	f.VisitAll(func(fl *flag.Flag) { names = append(names, fl.Name) })
	return names
}
