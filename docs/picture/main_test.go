package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestPicture(t *testing.T) {
	screen, err := record([]string{"printf", `gone\n\033[A\033[1ma <b>\033[0m\033[K \033[32mup\033[0m\n\n`}, 20, 5)
	if err != nil {
		t.Fatal(err)
	}
	picture := string(draw(screen, "a & b"))
	for decoder := xml.NewDecoder(strings.NewReader(picture)); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
	}
	for _, want := range []string{
		`>a &amp; b</text>`,
		`<tspan x="16.0" textLength="42.0" font-weight="bold">a &lt;b&gt;</tspan>`,
		`<tspan x="66.4" textLength="16.8" fill="#46a246">up</tspan>`,
	} {
		if !strings.Contains(picture, want) {
			t.Errorf("no %s in\n%s", want, picture)
		}
	}
	if strings.Contains(picture, "gone") || strings.Count(picture, "<text ") != 2 {
		t.Errorf("more than the screen's one line:\n%s", picture)
	}
	if _, err := record([]string{"false"}, 20, 5); err == nil {
		t.Error("a command that fails gives a picture")
	}
}
