package config

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// positions tells where in a file the keys stand, by their dotted names. The name of a
// table stands where its header does, or the first key in it.
type positions map[string]unstable.Position

// locate finds the positions in data, which has been decoded and so has no faults of form.
func locate(data []byte) positions {
	found := positions{}
	p := unstable.Parser{}
	p.Reset(data)
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = found.add(&p, "", e)
		case unstable.KeyValue:
			found.keyValue(&p, table, e)
		}
	}
	return found
}

// keyValue adds the key of e in a table, and those in its value if that is a table.
func (f positions) keyValue(p *unstable.Parser, table string, e *unstable.Node) {
	name := f.add(p, table, e)
	if e.Value().Kind != unstable.InlineTable {
		return
	}
	for it := e.Value().Children(); it.Next(); {
		f.keyValue(p, name, it.Node())
	}
}

// add adds the key of e with all the tables on its way, and returns its dotted name.
func (f positions) add(p *unstable.Parser, table string, e *unstable.Node) string {
	name := table
	at := unstable.Position{}
	for it := e.Key(); it.Next(); {
		if at.Line == 0 {
			at = p.Shape(it.Node().Raw).Start
		}
		name = strings.TrimPrefix(name+"."+string(it.Node().Data), ".")
		if _, ok := f[name]; !ok {
			f[name] = at
		}
	}
	return name
}

// line returns "FILE:LINE" of a key, as the source of its value.
func (b *builder) line(name string) string {
	if at, ok := b.positions[name]; ok {
		return fmt.Sprintf("%s:%d", b.at, at.Line)
	}
	return b.at
}

// where returns "FILE:LINE:COLUMN" of a key, for an error.
func (b *builder) where(name string) string {
	if at, ok := b.positions[name]; ok {
		return fmt.Sprintf("%s:%d:%d", b.at, at.Line, at.Column)
	}
	return b.at
}
