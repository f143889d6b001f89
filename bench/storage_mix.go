package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// mix is data of several kinds, the same in every run: a quarter are small files as of a
// program with its sources, a quarter texts and logs, a quarter what is compressed already,
// and a quarter files with the pages of databases. A third of the small files and of the pages
// occur twice.
type mix struct {
	dir            string
	size           int64
	random         *rand.Rand
	words          []string
	all            []string // every file
	small, large   []string
	bytes, changed int64
}

func newMix(dir string, size int64) *mix {
	m := &mix{dir: dir, size: size, random: rand.New(rand.NewPCG(1, 2))}
	for range 5000 {
		word := make([]byte, 2+m.random.IntN(9))
		for i := range word {
			word[i] = byte('a' + m.random.IntN(26))
		}
		m.words = append(m.words, string(word))
	}
	return m
}

func (m *mix) noise(n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		v := m.random.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b
}

// text is words, some more often than others.
func (m *mix) text(n int) []byte {
	b := make([]byte, 0, n+16)
	for len(b) < n {
		i := min(m.random.IntN(len(m.words)), m.random.IntN(len(m.words)), m.random.IntN(len(m.words)))
		b = append(append(b, m.words[i]...), ' ')
	}
	return b[:n]
}

// pages are those of a database, half of each empty.
func (m *mix) pages(n int) []byte {
	const page = 8 << 10
	b := make([]byte, 0, n)
	for len(b) < n {
		p := make([]byte, page)
		copy(p, m.noise(16))
		copy(p[16:], m.text(page/4))
		copy(p[page/2:], m.noise(page/8))
		b = append(b, p...)
	}
	return b[:n]
}

func (m *mix) put(name string, data []byte) error {
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	m.all = append(m.all, path)
	m.bytes += int64(len(data))
	return os.WriteFile(path, data, 0o644)
}

// write makes the files.
func (m *mix) write() error {
	quarter := m.size / 4
	var before []byte
	for i, n := 0, int64(0); n < quarter; i++ {
		data := before
		if data == nil || i%3 != 0 {
			data = m.text(1<<10 + m.random.IntN(60<<10))
			if i%4 == 0 {
				data = m.noise(len(data))
			}
		}
		before = data
		name := fmt.Sprintf("src/%02d/%03d/file%05d", i%37, i%101, i)
		if err := m.put(name, data); err != nil {
			return err
		}
		m.small = append(m.small, filepath.Join(m.dir, name))
		n += int64(len(data))
	}
	for _, kind := range []struct {
		name string
		make func(int) []byte
		each int64
	}{{"log", m.text, 16 << 20}, {"media", m.noise, 32 << 20}, {"db", m.pages, 128 << 20}} {
		for i, n := 0, int64(0); n < quarter; i++ {
			data := kind.make(int(min(kind.each, quarter-n)))
			name := fmt.Sprintf("%s/%04d", kind.name, i)
			if err := m.put(name, data); err != nil {
				return err
			}
			if kind.name != "media" {
				m.large = append(m.large, filepath.Join(m.dir, name))
			}
			n += int64(len(data))
		}
	}
	return nil
}

// change changes a hundredth of the data: half of it in small files that are written anew, and
// half in pieces of 64 KiB all over the large ones.
func (m *mix) change() error {
	m.changed = 0
	for m.changed < m.size/200 {
		path := m.small[m.random.IntN(len(m.small))]
		data := m.text(1<<10 + m.random.IntN(60<<10))
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
		m.changed += int64(len(data))
	}
	for m.changed < m.size/100 {
		f, err := os.OpenFile(m.large[m.random.IntN(len(m.large))], os.O_RDWR, 0)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil {
			const piece = 64 << 10
			_, err = f.WriteAt(m.pages(piece), m.random.Int64N(max(info.Size()/piece, 1))*piece)
			m.changed += piece
		}
		if cerr := f.Close(); err != nil || cerr != nil {
			return fmt.Errorf("change %s: %w", f.Name(), err)
		}
	}
	return nil
}
