package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
)

type request struct {
	Address string   `json:"address"`
	Method  string   `json:"method"`
	Headers []string `json:"headers"`
	Body    []byte   `json:"body"`
}

// A probe does something, if it has an act, and asks again and again until the answer has the needle, or has it not.
type asked struct {
	Act    *request `json:"act"`
	Watch  request  `json:"watch"`
	Needle []byte   `json:"needle"`
	// Whether the needle is to appear, or to vanish.
	Present        bool    `json:"present"`
	TimeoutSeconds float64 `json:"timeout_seconds"`
	// Between two questions, so that asking does not take the machine from what is measured.
	PauseSeconds float64 `json:"pause_seconds"`
}

// Times are microseconds since the epoch, by this machine's clock.
type seen struct {
	Sent     int64  `json:"sent"`
	Answered int64  `json:"answered"`
	Answer   []byte `json:"answer"`
	Seen     int64  `json:"seen"`
	Polls    int    `json:"polls"`
	Error    string `json:"error"`
}

func probe() error {
	connections := map[string]*grpc.ClientConn{}
	input := bufio.NewReader(os.Stdin)
	output := json.NewEncoder(os.Stdout)
	for {
		line, err := input.ReadBytes('\n')
		if err != nil {
			return nil
		}
		var wanted asked
		if err := json.Unmarshal(line, &wanted); err != nil {
			return err
		}
		found := seen{}
		if err := look(connections, wanted, &found); err != nil {
			found.Error = err.Error()
		}
		if err := output.Encode(found); err != nil {
			return err
		}
	}
}

func look(connections map[string]*grpc.ClientConn, wanted asked, found *seen) error {
	timeout := time.Duration(wanted.TimeoutSeconds * float64(time.Second))
	ask := func(what request) ([]byte, error) {
		connection := connections[what.Address]
		if connection == nil {
			var err error
			if connection, err = dial(what.Address); err != nil {
				return nil, err
			}
			connections[what.Address] = connection
		}
		return call(connection, what.Method, what.Headers, what.Body, timeout)
	}
	found.Sent = time.Now().UnixMicro()
	found.Answered = found.Sent
	if wanted.Act != nil {
		answer, err := ask(*wanted.Act)
		if err != nil {
			return fmt.Errorf("act: %w", err)
		}
		found.Answered = time.Now().UnixMicro()
		found.Answer = answer
	}
	end := time.Now().Add(timeout)
	for time.Now().Before(end) {
		answer, err := ask(wanted.Watch)
		found.Polls++
		if err == nil && bytes.Contains(answer, wanted.Needle) == wanted.Present {
			found.Seen = time.Now().UnixMicro()
			return nil
		}
		if err != nil && found.Polls == 1 {
			return fmt.Errorf("watch: %w", err)
		}
		time.Sleep(time.Duration(wanted.PauseSeconds * float64(time.Second)))
	}
	return fmt.Errorf("not seen after %d polls in %v", found.Polls, timeout)
}
