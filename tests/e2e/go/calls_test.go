// What Go's gRPC gets from a server with --max-batch 1 and --max-queue 1 and the adapter "outline". Compiled together
// with deploy/examples/go by other_stacks_test.py, which gives the address in HOTLORA_SERVER.
package main

import (
	"bytes"
	"context"
	"os"
	"reflect"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "hotlora-example/hotlorav1"
)

const (
	patience = 60 * time.Second
	deadline = 3 * time.Second // a request begins within it on a busy machine too
)

func request(steps, size uint32, adapters ...string) *pb.GenerateImagesRequest {
	prompt, width, height, seed := "a large red circle", size, size, uint64(7)
	made := &pb.GenerateImagesRequest{Prompt: &prompt, Width: &width, Height: &height, Seed: &seed, Steps: &steps}
	for _, name := range adapters {
		made.Adapters = append(made.Adapters, &pb.AdapterRef{Name: name})
	}
	return made
}

// small takes two steps.
func small(adapters ...string) *pb.GenerateImagesRequest { return request(2, 64, adapters...) }

// endless takes far longer than any test waits for.
func endless(adapters ...string) *pb.GenerateImagesRequest { return request(1000, 256, adapters...) }

func connect(t *testing.T) pb.ImageServiceClient {
	connection, err := dial(os.Getenv("HOTLORA_SERVER"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return pb.NewImageServiceClient(connection)
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// picture is what a small request paints; it fails the test if the server does not answer.
func picture(t *testing.T, images pb.ImageServiceClient) []byte {
	answer, err := images.GenerateImages(patient(t), small("outline"))
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetImages()[0].GetData()
}

// start begins an endless request and returns once it runs.
func start(ctx context.Context, t *testing.T, images pb.ImageServiceClient) pb.ImageService_StreamGenerateImagesClient {
	stream, err := images.StreamGenerateImages(ctx, endless("outline"))
	for err == nil {
		var event *pb.GenerateImagesEvent
		event, err = stream.Recv()
		if event.GetProgress() != nil {
			return stream
		}
	}
	t.Fatal(err)
	return nil
}

// end is the error that the stream ends with.
func end(stream grpc.ClientStream) error {
	for {
		if err := stream.RecvMsg(new(pb.GenerateImagesEvent)); err != nil {
			return err
		}
	}
}

func expectCode(t *testing.T, err error, code codes.Code) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("ended with %v, not %v", err, code)
	}
}

// details are the reason, the bad fields and the delay until a retry that the error has.
func details(err error) (reason string, fields []string, delay time.Duration) {
	for _, detail := range status.Convert(err).Details() {
		switch part := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = part.GetDomain() + "/" + part.GetReason()
		case *errdetails.BadRequest:
			for _, violation := range part.GetFieldViolations() {
				fields = append(fields, violation.GetField())
			}
		case *errdetails.RetryInfo:
			delay = part.GetRetryDelay().AsDuration()
		}
	}
	return
}

func TestUnaryAndStreamGiveTheSameBytes(t *testing.T) {
	images := connect(t)
	streamed, err := paint(patient(t), images, small("outline"))
	if err != nil {
		t.Fatal(err)
	}
	if unary := picture(t, images); len(unary) == 0 || !bytes.Equal(unary, streamed) {
		t.Fatalf("unary %d bytes, stream %d bytes, not the same", len(unary), len(streamed))
	}
}

func TestErrorsHaveTheirDetails(t *testing.T) {
	images := connect(t)
	bad := request(0, 64)
	*bad.Width = 7
	_, err := images.GenerateImages(patient(t), bad)
	expectCode(t, err, codes.InvalidArgument)
	reason, fields, _ := details(err)
	if reason != "hotlora/INVALID_REQUEST" || !reflect.DeepEqual(fields, []string{"width", "steps"}) {
		t.Fatalf("reason %s, bad fields %v", reason, fields)
	}
	_, err = images.GenerateImages(patient(t), small("unknown"))
	expectCode(t, err, codes.NotFound)
	if reason, _, _ := details(err); reason != "hotlora/ADAPTER_NOT_FOUND" {
		t.Fatalf("reason %s", reason)
	}
	picture(t, images)
}

func TestAFullQueueSaysWhenToTryAgain(t *testing.T) {
	images := connect(t)
	ctx, cancel := context.WithCancel(patient(t))
	defer cancel()
	start(ctx, t, images)
	waiting, err := images.StreamGenerateImages(ctx, endless())
	if err != nil {
		t.Fatal(err)
	}
	if event, err := waiting.Recv(); event.GetAccepted() == nil {
		t.Fatal(event, err)
	}
	plain, err := grpc.Dial(os.Getenv("HOTLORA_SERVER"), grpc.WithInsecure()) // without the retry policy
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	_, err = pb.NewImageServiceClient(plain).GenerateImages(patient(t), small())
	expectCode(t, err, codes.ResourceExhausted)
	if reason, _, delay := details(err); reason != "hotlora/QUEUE_FULL" || delay < time.Second {
		t.Fatalf("reason %s, delay %v", reason, delay)
	}
}

func TestTheNextRequestWorksAfterADeadline(t *testing.T) {
	images := connect(t)
	before := picture(t, images)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	expectCode(t, end(start(ctx, t, images)), codes.DeadlineExceeded)
	if !bytes.Equal(picture(t, images), before) {
		t.Fatal("the next picture is another one")
	}
}

func TestTheNextRequestWorksAfterACancellation(t *testing.T) {
	images := connect(t)
	before := picture(t, images)
	ctx, cancel := context.WithCancel(patient(t))
	stream := start(ctx, t, images)
	cancel()
	expectCode(t, end(stream), codes.Canceled)
	if !bytes.Equal(picture(t, images), before) {
		t.Fatal("the next picture is another one")
	}
}
