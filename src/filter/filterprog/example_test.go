package filterprog_test

import (
	"fmt"
	"os"
	"strings"

	"opensmtpd/src/filter/filterprog"
)

// A filter that refuses clients which call themselves localhost, and removes the
// User-Agent field from messages. Here it talks to a smtpd that is made up.
func Example() {
	smtpd := strings.NewReader(strings.Join([]string{
		"config|smtpd-version|7.8.0",
		"config|protocol|0.7",
		"config|ready",
		"report|0.7|1576146008.006099|smtp-in|link-connect|7641df9771b4ed00|mx.example.org|pass|192.0.2.1:33174|192.0.2.2:25",
		"filter|0.7|1576146008.006103|smtp-in|helo|7641df9771b4ed00|1ef1c203cc576e5d|localhost",
		"filter|0.7|1576146008.106103|smtp-in|data-line|7641df9771b4ed00|1ef1c203cc576e5e|User-Agent: me",
		"filter|0.7|1576146008.106103|smtp-in|data-line|7641df9771b4ed00|1ef1c203cc576e5e|Subject: hello",
		"filter|0.7|1576146008.106103|smtp-in|data-line|7641df9771b4ed00|1ef1c203cc576e5e|.",
		"",
	}, "\n"))

	p := filterprog.New(smtpd, os.Stdout) // in earnest: os.Stdin, os.Stdout

	type client struct {
		name   string
		inBody bool
	}
	p.OnReport("smtp-in|link-connect", func(s *filterprog.Session, e filterprog.Event) {
		s.Data = &client{name: e.Params[0]}
	})
	p.OnRequest("helo", func(r *filterprog.Request) {
		if r.Params[0] == "localhost" {
			r.Reject("550 5.7.1 " + r.Session.Data.(*client).name + ", you are not localhost")
			return
		}
		r.Proceed()
	})
	p.OnLine(func(s *filterprog.Session, line []byte, out func([]byte)) {
		c := s.Data.(*client)
		c.inBody = c.inBody || len(line) == 0
		if !c.inBody && strings.HasPrefix(strings.ToLower(string(line)), "user-agent:") {
			return
		}
		out(line)
		if string(line) == "." {
			c.inBody = false
		}
	})
	if err := p.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	// Output:
	// register|report|smtp-in|link-connect
	// register|report|smtp-in|link-disconnect
	// register|filter|smtp-in|helo
	// register|filter|smtp-in|data-line
	// register|ready
	// filter-result|7641df9771b4ed00|1ef1c203cc576e5d|reject|550 5.7.1 mx.example.org, you are not localhost
	// filter-dataline|7641df9771b4ed00|1ef1c203cc576e5e|Subject: hello
	// filter-dataline|7641df9771b4ed00|1ef1c203cc576e5e|.
}
