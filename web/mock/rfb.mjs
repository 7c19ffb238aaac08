/** The smallest VNC server that shows a picture: RFB 3.8, no authentication, one raw rectangle of stripes. */
export function serveRfb(socket) {
  const width = 320;
  const height = 200;
  let stage = 'version';
  let buffer = Buffer.alloc(0);
  socket.send(Buffer.from('RFB 003.008\n'));
  const take = (n) => {
    const part = buffer.subarray(0, n);
    buffer = buffer.subarray(n);
    return part;
  };
  const frame = () => {
    const head = Buffer.alloc(16);
    head.writeUInt8(0, 0);
    head.writeUInt16BE(1, 2);
    head.writeUInt16BE(width, 8);
    head.writeUInt16BE(height, 10);
    const pixels = Buffer.alloc(width * height * 4);
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        const at = (y * width + x) * 4;
        const stripe = (x >> 5) & 1;
        pixels[at] = stripe ? 0x6b : 0xe6;
        pixels[at + 1] = stripe ? 0x3f : 0xef;
        pixels[at + 2] = stripe ? 0x2b : 0xf2;
      }
    }
    socket.send(Buffer.concat([head, pixels]));
  };
  socket.on('message', (data) => {
    buffer = Buffer.concat([buffer, Buffer.from(data)]);
    for (;;) {
      if (stage === 'version' && buffer.length >= 12) {
        take(12);
        socket.send(Buffer.from([1, 1]));
        stage = 'security';
      } else if (stage === 'security' && buffer.length >= 1) {
        take(1);
        socket.send(Buffer.from([0, 0, 0, 0]));
        stage = 'init';
      } else if (stage === 'init' && buffer.length >= 1) {
        take(1);
        const name = Buffer.from('mock screen');
        const init = Buffer.alloc(24);
        init.writeUInt16BE(width, 0);
        init.writeUInt16BE(height, 2);
        // 32 bits, depth 24, little endian, true colour, 8 bits each: blue, green, red in memory.
        Buffer.from([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]).copy(init, 4);
        init.writeUInt32BE(name.length, 20);
        socket.send(Buffer.concat([init, name]));
        stage = 'run';
      } else if (stage === 'run' && buffer.length >= 1) {
        const type = buffer[0];
        const sizes = { 0: 20, 3: 10, 4: 8, 5: 6 };
        if (type === 2) {
          if (buffer.length < 4 || buffer.length < 4 + buffer.readUInt16BE(2) * 4) return;
          take(4 + buffer.readUInt16BE(2) * 4);
        } else if (sizes[type]) {
          if (buffer.length < sizes[type]) return;
          const message = take(sizes[type]);
          if (type === 3 && message[1] === 0) frame();
        } else {
          buffer = Buffer.alloc(0);
          return;
        }
      } else return;
    }
  });
}
