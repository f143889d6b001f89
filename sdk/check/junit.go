package check

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Stamp    string      `xml:"timestamp,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string     `xml:"classname,attr"`
	Name    string     `xml:"name,attr"`
	Time    string     `xml:"time,attr"`
	Failure *junitText `xml:"failure"`
	Error   *junitText `xml:"error"`
	Skipped *junitText `xml:"skipped"`
}

type junitText struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// junit is the XML that CI systems read: a failed case is a failure, one without a usable
// answer an error.
func (r *Report) junit(w io.Writer) error {
	all := r.withLoad()
	s := junitSuite{
		Name: "plugin " + r.Plugin, Tests: len(all), Failures: r.Count(Fail) + len(all) - len(r.Results), Errors: r.Count(Broken), Skipped: r.Count(Skipped) + r.Count(Deviates),
		Stamp: r.Started.Format("2006-01-02T15:04:05"),
	}
	seconds := 0.0
	for _, result := range all {
		seconds += result.Seconds
		kind, name, _ := strings.Cut(result.ID, "/")
		c := junitCase{Class: r.Plugin + "." + kind, Name: name, Time: fmt.Sprintf("%.3f", result.Seconds)}
		text := &junitText{Message: strings.Join(result.Reasons, "; ")}
		switch result.Outcome {
		case Fail:
			c.Failure = text
		case Broken:
			c.Error = text
		case Deviates, Skipped:
			c.Skipped = text
		case Pass:
		}
		if result.Outcome == Fail || result.Outcome == Broken {
			lines := []string{result.Asserts, result.Source}
			for _, e := range result.Evidence {
				lines = append(lines, e.String())
			}
			text.Text = printable(strings.Join(lines, "\n"))
		}
		text.Message = printable(text.Message)
		s.Cases = append(s.Cases, c)
	}
	s.Time = fmt.Sprintf("%.3f", seconds)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(s); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// printable takes out what XML cannot hold.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' && c != '\n' && c != '\t' {
			return '\ufffd'
		}
		return c
	}, text)
}
