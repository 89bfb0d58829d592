"""A grpcio server for `library.v1.Library`, whose messages are put together by hand. Prints its port.

With a file of descriptors as argument it tells of itself by reflection. Answers are compressed by gzip, whether or not the caller reads that: so grpcio does when its handler asks for it.
"""

import sys
from concurrent import futures

import grpc


def varint(number):
    data = b""
    while number > 127:
        data += bytes([number & 127 | 128])
        number >>= 7
    return data + bytes([number])


def text(number, value):
    data = value.encode()
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def first_text(message):
    """The value of field 1, if the message begins with it."""
    return message[2 : 2 + message[1]].decode() if message[:1] == b"\n" else ""


def get_book(request, context):
    name = first_text(request)
    context.set_compression(grpc.Compression.Gzip)
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", "yes"), ("x-seen", metadata.get("x-custom", ""))))
    context.set_trailing_metadata((("x-trailing", "late"),))
    if name.endswith("/gone"):
        context.abort(grpc.StatusCode.NOT_FOUND, "no \u201csuch\u201d book")
    if name.endswith("/left"):
        left = context.time_remaining()
        return text(1, name) + text(2, "none" if left is None else f"{left:.1f}")
    if name.endswith("/broken"):
        raise RuntimeError("a handler that fails")
    return text(1, name) + text(2, "Walden " * 400 if name.endswith("/long") else "Walden")


def list_books(request, context):
    for number in range(3):
        yield text(1, f"{first_text(request)}/books/{number}")
    if first_text(request).endswith("/broken"):
        context.abort(grpc.StatusCode.DATA_LOSS, "the shelf fell")


def add_books(requests, context):
    return bytes([8, sum(1 for _ in requests)])


def talk(requests, context):
    for request in requests:
        yield text(1, "you said " + first_text(request))


def reflect(server, path):
    from google.protobuf import descriptor_pb2, descriptor_pool
    from grpc_reflection.v1alpha import reflection

    described = descriptor_pb2.FileDescriptorSet()
    with open(path, "rb") as file:
        described.ParseFromString(file.read())
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.Add(file)
    names = ("library.v1.Library", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=pool)


def main():
    handlers = {
        "GetBook": grpc.unary_unary_rpc_method_handler(get_book),
        "ListBooks": grpc.unary_stream_rpc_method_handler(list_books),
        "AddBooks": grpc.stream_unary_rpc_method_handler(add_books),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    service = grpc.method_handlers_generic_handler("library.v1.Library", handlers)
    server.add_generic_rpc_handlers((service,))
    if len(sys.argv) > 1:
        reflect(server, sys.argv[1])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    # Ends with the test, which holds the other end.
    sys.stdin.read()
    server.stop(None)


main()
