package cli

import (
	"bufio"
	"context"
	"strings"
)

// asked asks somebody on the terminal, and tells whether he said yes. Who interrupts need not answer first.
func (a *app) asked(ctx context.Context, question string) (yes bool, err error) {
	a.sayf("%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(a.Stdin).ReadString('\n')
		if err != nil {
			line = "" // no answer is no
		}
		answer <- line
	}()
	select {
	case line := <-answer:
		return strings.EqualFold(strings.TrimSpace(line), "y"), nil
	case <-ctx.Done():
		a.sayf("\n")
		return false, ctx.Err()
	}
}
