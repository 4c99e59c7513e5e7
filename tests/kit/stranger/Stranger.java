import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;
import nearline.v1.RetrieveRequest;
import nearline.v1.RetrieveResponse;
import nearline.v1.RetrieverGrpc;

/** A client as a stranger writes it who has nothing of ours but the proto: ADDRESS MEMBER K. Prints a line for each candidate. */
public final class Stranger {
    public static void main(String[] arguments) throws InterruptedException {
        ManagedChannel channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
        try {
            RetrieveRequest request = RetrieveRequest.newBuilder()
                    .setMemberId(arguments[1])
                    .setK(Integer.parseInt(arguments[2]))
                    .setTimeoutMs(10_000)
                    .build();
            print(RetrieverGrpc.newBlockingStub(channel).withDeadlineAfter(20, TimeUnit.SECONDS).retrieve(request));
        } finally {
            channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        }
    }

    private static void print(RetrieveResponse response) {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (int row = 0; row < response.getPostIdsCount(); row++) {
            out.println(response.getPostIds(row) + "\t" + response.getScores(row) + "\t" + response.getTiers(row));
        }
    }
}
