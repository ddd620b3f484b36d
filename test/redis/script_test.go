package redis

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// script is one transcript. See the documentation of the package for the
// format.
type script struct {
	path  string
	lines []string // of the file
	cases []*scene
}

// scene is one case of a transcript.
type scene struct {
	name   string
	line   int // number in the file, from 1
	groups []*group
}

// group is what is sent at once, and the replies to it.
type group struct {
	line       int    // number of the first line that is sent
	connection string // name
	commands   []string
	payload    []byte
	replies    int // expected; -1 while not said
	closed     bool
	halfclose  bool
	bytewise   bool
	unordered  bool
	until      bool
	scan       bool
	differs    string // reason

	begin, end int // the lines with replies, as indices
	want       map[string][]string
}

// Prefixes of lines with replies, by whom they come from.
const (
	fromBoth  = ""
	fromRedis = "redis"
	fromProa  = "proa"
)

var (
	sendLine  = regexp.MustCompile(`^([a-z]*)(>>?) (.*)$`)
	replyLine = regexp.MustCompile(`^(redis|proa|)<(\.\.\.$|~ | |$)(.*)$`)
)

// readScript reads and checks a transcript.
func readScript(path string) (*script, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := parseScript(filepath.Base(path), string(b))
	if err != nil {
		return nil, err
	}
	s.path = path
	return s, nil
}

// parseScript parses the text of a transcript. name is for messages.
func parseScript(name, text string) (*script, error) {
	s := &script{lines: strings.Split(strings.TrimSuffix(text, "\n"), "\n")}
	p := parser{script: s}
	for i, line := range s.lines {
		if err := p.line(i, line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
	}
	if err := p.finish(len(s.lines)); err != nil {
		return nil, fmt.Errorf("%s: at the end: %w", name, err)
	}
	return s, nil
}

// parser builds a script line by line.
type parser struct {
	script *script
	scene  *scene
	group  *group // being built; nil between groups
}

func (p *parser) line(i int, line string) error {
	switch {
	case line == "" || strings.HasPrefix(line, "#"):
		return p.finish(i)
	case strings.HasPrefix(line, "=== "):
		if err := p.finish(i); err != nil {
			return err
		}
		p.scene = &scene{name: line[4:], line: i + 1}
		p.script.cases = append(p.script.cases, p.scene)
		return nil
	case p.scene == nil:
		return fmt.Errorf("a case begins with a line \"=== name\"")
	}
	if m := replyLine.FindStringSubmatch(line); m != nil {
		return p.reply(i, m[1], line)
	}
	if p.group != nil && p.group.end > 0 {
		if err := p.finish(i); err != nil {
			return err
		}
	}
	if p.group == nil {
		p.group = &group{replies: -1, want: map[string][]string{}}
	}
	if m := sendLine.FindStringSubmatch(line); m != nil {
		return p.group.send(i, line, m[1], m[2], m[3])
	}
	return p.group.directive(line)
}

// reply adds a line of replies to the group.
func (p *parser) reply(i int, from, line string) error {
	if p.group == nil || p.group.line == 0 {
		return fmt.Errorf("a reply without a command before it")
	}
	g := p.group
	if (from == fromBoth) != (g.differs == "") {
		return fmt.Errorf("redis< and proa< belong to what differs, and only to that")
	}
	if g.end == 0 {
		g.begin = i
	}
	g.end = i + 1
	g.want[from] = append(g.want[from], strings.TrimPrefix(line, from))
	return nil
}

// finish ends a group.
func (p *parser) finish(i int) error {
	g := p.group
	p.group = nil
	switch {
	case g == nil:
		return nil
	case g.line == 0:
		return fmt.Errorf("nothing is sent")
	}
	if g.end == 0 {
		g.begin, g.end = i, i
	}
	if g.replies < 0 {
		g.replies = 0
		for _, c := range g.commands {
			if !strings.HasPrefix(c, ">> ") {
				g.replies++
			}
		}
	}
	if g.scan && (len(g.commands) != 1 || g.unordered || g.until) {
		return fmt.Errorf("scan goes with one command and nothing else")
	}
	p.scene.groups = append(p.scene.groups, g)
	return nil
}

// send adds what a line sends.
func (g *group) send(i int, line, connection, arrow, text string) error {
	if g.line == 0 {
		g.line, g.connection = i+1, connection
	}
	if connection != g.connection {
		return fmt.Errorf("commands on two connections without replies between them")
	}
	words, err := splitWords(text)
	if err != nil {
		return err
	}
	if arrow == ">>" {
		g.payload = append(g.payload, strings.Join(words, "")...)
	} else {
		g.payload = appendCommand(g.payload, words...)
	}
	g.commands = append(g.commands, strings.TrimPrefix(line, connection))
	return nil
}

func (g *group) directive(line string) (err error) {
	if g.line != 0 {
		return fmt.Errorf("%q is no line to be sent, and no reply", line)
	}
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case word == "differs:" && rest != "":
		g.differs = rest
		return nil
	case word == "replies":
		g.replies, err = strconv.Atoi(rest)
		return err
	case rest != "":
		return fmt.Errorf("unknown line %q", line)
	}
	flags := map[string]*bool{
		"closed": &g.closed, "halfclose": &g.halfclose, "bytewise": &g.bytewise,
		"unordered": &g.unordered, "until": &g.until, "scan": &g.scan,
	}
	if flags[word] == nil {
		return fmt.Errorf("unknown line %q", line)
	}
	*flags[word] = true
	return nil
}

// splitWords splits at spaces. A word is bare or a Go string; behind it may
// stand * and how often it is to be repeated.
func splitWords(text string) ([]string, error) {
	var words []string
	for text = strings.TrimLeft(text, " "); text != ""; text = strings.TrimLeft(text, " ") {
		word, rest, err := firstWord(text)
		if err != nil {
			return nil, err
		}
		words = append(words, word)
		text = rest
	}
	if words == nil {
		return nil, fmt.Errorf("nothing to send")
	}
	return words, nil
}

func firstWord(text string) (word, rest string, err error) {
	if text[0] != '"' {
		word, rest, _ = strings.Cut(text, " ")
		return word, rest, nil
	}
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil {
		return "", "", fmt.Errorf("%w in %s", err, text)
	}
	if word, err = strconv.Unquote(quoted); err != nil {
		return "", "", err
	}
	tail, rest, _ := strings.Cut(text[len(quoted):], " ")
	if tail == "" {
		return word, rest, nil
	}
	factor, ok := strings.CutPrefix(tail, "*")
	n, err := strconv.Atoi(factor)
	if !ok || err != nil || n < 0 || n*len(word) > bulkMax {
		return "", "", fmt.Errorf("behind a string stands %q, not a factor such as *100", tail)
	}
	return strings.Repeat(word, n), rest, nil
}

// appendCommand appends a command as clients send it.
func appendCommand(dst []byte, words ...string) []byte {
	dst = fmt.Appendf(dst, "*%d\r\n", len(words))
	for _, w := range words {
		dst = fmt.Appendf(dst, "$%d\r\n%s\r\n", len(w), w)
	}
	return dst
}

// wanted returns the lines that a server is to answer.
func (g *group) wanted(from string) []string {
	if g.differs == "" {
		from = fromBoth
	}
	return g.want[from]
}

// matches reports whether lines are what is expected, each of which has its
// prefix.
func matches(want, got []string) (bool, error) {
	for i, w := range want {
		if w == "<..." {
			return i == len(want)-1, nil
		}
		if i >= len(got) {
			return false, nil
		}
		expression, isExpression := strings.CutPrefix(w, "<~ ")
		if !isExpression {
			if strings.TrimPrefix(strings.TrimPrefix(w, "<"), " ") != got[i] {
				return false, nil
			}
			continue
		}
		if ok, err := regexp.MatchString("^(?:"+expression+")$", got[i]); !ok || err != nil {
			return false, err
		}
	}
	return len(want) == len(got), nil
}

// asWritten returns lines of replies as they stand in a transcript.
func asWritten(from string, got []string) []string {
	var out []string
	for _, line := range got {
		out = append(out, strings.TrimRight(from+"< "+line, " "))
	}
	return out
}

// rewrite returns the text with other replies of Redis, by group. Groups that
// are not in the map keep theirs.
func (s *script) rewrite(got map[*group][]string) string {
	lines := slices.Clone(s.lines)
	for _, c := range slices.Backward(s.cases) {
		for _, g := range slices.Backward(c.groups) {
			if answers, ok := got[g]; ok {
				lines = slices.Replace(lines, g.begin, g.end, g.rewritten(answers)...)
			}
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func (g *group) rewritten(got []string) []string {
	if g.differs == "" {
		return asWritten(fromBoth, got)
	}
	out := asWritten(fromRedis, got)
	for _, line := range g.want[fromProa] {
		out = append(out, fromProa+line)
	}
	return out
}
