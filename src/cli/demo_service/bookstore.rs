//! The bookstore of `openapi-specs/bookstore.proto` over gRPC, kept in memory.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};
use tonic::{Request, Response, Status, Streaming};

use wire::bookstore::v1::bookstore_server::Bookstore;
pub(super) use wire::bookstore::v1::bookstore_server::BookstoreServer;
use wire::bookstore::v1::{
    Book, BookEvent, ChatMessage, CreateBookRequest, DeleteBookRequest, GetBookRequest,
    GetStatsRequest, ImportBooksResponse, ListBooksRequest, ListBooksResponse, ListShelvesRequest,
    ListShelvesResponse, MoveBookRequest, PutCoverRequest, Shelf, Stats, UpdateBookRequest, book,
    book_event,
};
use wire::google::api::HttpBody;

/// What `build.rs` made of the file.
mod wire {
    #![allow(
        missing_docs,
        unreachable_pub,
        dead_code,
        clippy::all,
        clippy::pedantic,
        reason = "made of the file, which has the comments"
    )]

    pub(super) mod bookstore {
        pub(in super::super) mod v1 {
            tonic::include_proto!("bookstore.v1");
        }
    }

    pub(super) mod google {
        pub(in super::super) mod api {
            tonic::include_proto!("google.api");
        }
    }
}

/// Books it keeps, and bytes of a cover: it is nobody's production.
const MOST_BOOKS: usize = 10_000;
const LARGEST_COVER: usize = 64 * 1024;
/// Between two events of what is there already.
const TICK: Duration = Duration::from_millis(200);
/// Events and messages that wait for a slow reader.
const QUEUE: usize = 16;

/// All shelves.
#[derive(Debug)]
pub(super) struct Store {
    shelves: Arc<Shelves>,
}

#[derive(Debug)]
struct Shelves {
    books: Mutex<BTreeMap<String, Book>>,
    covers: Mutex<BTreeMap<String, HttpBody>>,
    events: broadcast::Sender<BookEvent>,
    visits: AtomicU64,
}

impl Store {
    /// With a few books.
    pub(super) fn new() -> Self {
        let mut books = BTreeMap::new();
        for (name, title, author, isbn) in [
            (
                "shelves/fiction/books/moby-dick",
                "Moby-Dick",
                "Herman Melville",
                "9780142437247",
            ),
            (
                "shelves/fiction/books/emma",
                "Emma",
                "Jane Austen",
                "9780141439587",
            ),
            (
                "shelves/fiction/books/walden",
                "Walden",
                "Henry David Thoreau",
                "9780691096124",
            ),
            (
                "shelves/science/books/origin",
                "On the Origin of Species",
                "Charles Darwin",
                "9780140439120",
            ),
        ] {
            let author = wire::bookstore::v1::Author {
                name: author.to_owned(),
                biography: String::new(),
            };
            let book = Book {
                name: name.to_owned(),
                title: title.to_owned(),
                authors: vec![author],
                price: 1290,
                number: Some(book::Number::Isbn(isbn.to_owned())),
                ..Book::default()
            };
            books.insert(name.to_owned(), book);
        }
        Self {
            shelves: Arc::new(Shelves {
                books: Mutex::new(books),
                covers: Mutex::default(),
                events: broadcast::channel(QUEUE).0,
                visits: AtomicU64::new(0),
            }),
        }
    }

    fn visited(&self) {
        self.shelves.visits.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shelves {
    fn find(&self, name: &str) -> Result<Book, Status> {
        let found = self.books.lock().get(name).cloned();
        found.ok_or_else(|| Status::not_found(format!("there is no `{name}`")))
    }

    fn put(&self, book: Book) -> Result<Book, Status> {
        let mut books = self.books.lock();
        if books.len() >= MOST_BOOKS {
            return Err(Status::resource_exhausted("the shelves are full"));
        }
        if books.contains_key(&book.name) {
            return Err(Status::already_exists(format!("`{}` is there", book.name)));
        }
        books.insert(book.name.clone(), book.clone());
        drop(books);
        self.tell(book_event::Kind::Added, &book);
        Ok(book)
    }

    fn take(&self, name: &str) -> Result<Book, Status> {
        let taken = self.books.lock().remove(name);
        let book = taken.ok_or_else(|| Status::not_found(format!("there is no `{name}`")))?;
        self.tell(book_event::Kind::Removed, &book);
        Ok(book)
    }

    fn tell(&self, kind: book_event::Kind, book: &Book) {
        // Nobody has to watch.
        let _ = self.events.send(event(kind, book.clone()));
    }

    /// The books of `shelves/NAME`, or of all with `shelves/-`, that the filter lets through.
    fn of(&self, asked: &ListBooksRequest) -> Vec<Book> {
        let wanted = |book: &&Book| {
            let on = asked.parent == "shelves/-" || shelf_of(&book.name) == asked.parent;
            let title = asked.filter.as_ref().map_or("", |it| &it.title);
            let format = asked.formats.is_empty() || asked.formats.contains(&book.format);
            on && format && book.title.contains(title)
        };
        self.books.lock().values().filter(wanted).cloned().collect()
    }
}

fn event(kind: book_event::Kind, book: Book) -> BookEvent {
    BookEvent {
        kind: kind.into(),
        book: Some(book),
    }
}

/// `shelves/fiction` of `shelves/fiction/books/emma`.
fn shelf_of(name: &str) -> &str {
    name.find("/books/")
        .map_or(name, |at| name.get(..at).unwrap_or(name))
}

/// What a page begins after, and how long it is.
fn page(books: Vec<Book>, asked: &ListBooksRequest) -> ListBooksResponse {
    let most = usize::try_from(asked.page_size).unwrap_or(0);
    let most = if most == 0 { 50 } else { most.min(1_000) };
    let after = |book: &Book| book.name > asked.page_token;
    let mut books: Vec<Book> = books.into_iter().filter(after).take(most + 1).collect();
    let more = books.len() > most;
    books.truncate(most);
    let last = books.last().filter(|_| more).map(|book| book.name.clone());
    ListBooksResponse {
        next_page_token: last.unwrap_or_default(),
        books,
    }
}

/// What a mask names is taken over; without a mask, everything.
fn change(book: &mut Book, new: Book, paths: &[String]) -> Result<(), Status> {
    if paths.is_empty() {
        *book = new;
        return Ok(());
    }
    for path in paths {
        match path.as_str() {
            "name" => {}
            "title" => book.title.clone_from(&new.title),
            "authors" => book.authors.clone_from(&new.authors),
            "price" => book.price = new.price,
            "format" => book.format = new.format,
            "labels" => book.labels.clone_from(&new.labels),
            "published" => book.published = new.published,
            "isbn" | "issn" => book.number.clone_from(&new.number),
            "rating" => book.rating = new.rating,
            other => {
                let why = format!("update_mask: a book has no `{other}`");
                return Err(Status::invalid_argument(why));
            }
        }
    }
    Ok(())
}

/// Messages somebody else makes.
pub(super) struct Messages<T>(mpsc::Receiver<Result<T, Status>>);

impl<T> Stream for Messages<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

#[tonic::async_trait]
impl Bookstore for Store {
    async fn list_shelves(
        &self,
        _: Request<ListShelvesRequest>,
    ) -> Result<Response<ListShelvesResponse>, Status> {
        self.visited();
        let names: Vec<String> = {
            let books = self.shelves.books.lock();
            let mut names: Vec<String> = books.keys().map(|it| shelf_of(it).to_owned()).collect();
            names.dedup();
            names
        };
        let shelves = names.into_iter().map(|name| Shelf {
            theme: name.trim_start_matches("shelves/").to_owned(),
            name,
        });
        Ok(Response::new(ListShelvesResponse {
            shelves: shelves.collect(),
        }))
    }

    async fn list_books(
        &self,
        asked: Request<ListBooksRequest>,
    ) -> Result<Response<ListBooksResponse>, Status> {
        self.visited();
        let asked = asked.into_inner();
        Ok(Response::new(page(self.shelves.of(&asked), &asked)))
    }

    async fn get_book(&self, asked: Request<GetBookRequest>) -> Result<Response<Book>, Status> {
        self.visited();
        let asked = asked.into_inner();
        if asked.isbn.is_empty() {
            return self.shelves.find(&asked.name).map(Response::new);
        }
        let isbn = Some(book::Number::Isbn(asked.isbn));
        let found = self
            .shelves
            .books
            .lock()
            .values()
            .find(|it| it.number == isbn)
            .cloned();
        let book = found.ok_or_else(|| Status::not_found("no book has this ISBN"))?;
        Ok(Response::new(book))
    }

    async fn create_book(
        &self,
        asked: Request<CreateBookRequest>,
    ) -> Result<Response<Book>, Status> {
        let asked = asked.into_inner();
        let mut book = asked.book.unwrap_or_default();
        let id = match asked.book_id.is_empty() {
            true => book
                .title
                .to_lowercase()
                .replace(|c: char| !c.is_ascii_alphanumeric(), "-"),
            false => asked.book_id,
        };
        if id.is_empty() {
            return Err(Status::invalid_argument("book.title: a book has a title"));
        }
        book.name = format!("{}/books/{id}", asked.parent);
        self.shelves.put(book).map(Response::new)
    }

    async fn update_book(
        &self,
        asked: Request<UpdateBookRequest>,
    ) -> Result<Response<Book>, Status> {
        let asked = asked.into_inner();
        let new = asked.book.unwrap_or_default();
        let mask = asked.update_mask.unwrap_or_default();
        let mut books = self.shelves.books.lock();
        let book = books.get_mut(&new.name);
        let book = book.ok_or_else(|| Status::not_found(format!("there is no `{}`", new.name)))?;
        change(book, new, &mask.paths)?;
        Ok(Response::new(book.clone()))
    }

    async fn delete_book(&self, asked: Request<DeleteBookRequest>) -> Result<Response<()>, Status> {
        self.shelves.take(&asked.into_inner().name)?;
        Ok(Response::new(()))
    }

    async fn move_book(&self, asked: Request<MoveBookRequest>) -> Result<Response<Book>, Status> {
        let asked = asked.into_inner();
        let mut book = self.shelves.take(&asked.name)?;
        let id = asked.name.rsplit('/').next().unwrap_or_default();
        book.name = format!("{}/books/{id}", asked.other_shelf);
        self.shelves.put(book).map(Response::new)
    }

    type WatchBooksStream = Messages<BookEvent>;

    /// What is there, then what changes; with `page_size` it ends after so many.
    async fn watch_books(
        &self,
        asked: Request<ListBooksRequest>,
    ) -> Result<Response<Self::WatchBooksStream>, Status> {
        let asked = asked.into_inner();
        let (send, messages) = mpsc::channel(QUEUE);
        let mut changes = self.shelves.events.subscribe();
        let there = self.shelves.of(&asked);
        let most = usize::try_from(asked.page_size)
            .ok()
            .filter(|most| *most > 0);
        tokio::spawn(async move {
            let mut left = most.unwrap_or(usize::MAX);
            for book in there {
                if left == 0
                    || send
                        .send(Ok(event(book_event::Kind::Added, book)))
                        .await
                        .is_err()
                {
                    return;
                }
                left -= 1;
                tokio::time::sleep(TICK).await;
            }
            while left > 0 {
                let told = tokio::select! {
                    told = changes.recv() => told,
                    () = send.closed() => return,
                };
                let Ok(change) = told else { return };
                if send.send(Ok(change)).await.is_err() {
                    return;
                }
                left -= 1;
            }
        });
        Ok(Response::new(Messages(messages)))
    }

    async fn import_books(
        &self,
        books: Request<Streaming<Book>>,
    ) -> Result<Response<ImportBooksResponse>, Status> {
        let (mut books, mut imported) = (books.into_inner(), 0);
        while let Some(book) = books.message().await? {
            self.shelves.put(book)?;
            imported += 1;
        }
        Ok(Response::new(ImportBooksResponse { imported }))
    }

    type ChatStream = Messages<ChatMessage>;

    async fn chat(
        &self,
        said: Request<Streaming<ChatMessage>>,
    ) -> Result<Response<Self::ChatStream>, Status> {
        let mut said = said.into_inner();
        let (send, messages) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            while let Ok(Some(message)) = said.message().await {
                let text = format!("You said: {}", message.text);
                if send.send(Ok(ChatMessage { text })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Messages(messages)))
    }

    async fn get_cover(
        &self,
        asked: Request<GetBookRequest>,
    ) -> Result<Response<HttpBody>, Status> {
        let name = asked.into_inner().name;
        let book = self.shelves.find(&name)?;
        let cover = self.shelves.covers.lock().get(&name).cloned();
        Ok(Response::new(cover.unwrap_or_else(|| HttpBody {
            content_type: "image/svg+xml".to_owned(),
            data: drawn(&book.title),
            extensions: Vec::new(),
        })))
    }

    async fn put_cover(&self, asked: Request<PutCoverRequest>) -> Result<Response<()>, Status> {
        let asked = asked.into_inner();
        self.shelves.find(&asked.name)?;
        let image = asked.image.unwrap_or_default();
        if image.data.len() > LARGEST_COVER {
            return Err(Status::invalid_argument("a cover has at most 64 KiB"));
        }
        self.shelves.covers.lock().insert(asked.name, image);
        Ok(Response::new(()))
    }

    async fn get_stats(&self, _: Request<GetStatsRequest>) -> Result<Response<Stats>, Status> {
        let books = self.shelves.books.lock().len();
        Ok(Response::new(Stats {
            books: i64::try_from(books).unwrap_or(i64::MAX),
            visits: self.shelves.visits.load(Ordering::Relaxed),
        }))
    }
}

/// A cover with the title on it.
fn drawn(title: &str) -> Vec<u8> {
    let safe = title.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"200\" height=\"300\">\
         <text x=\"20\" y=\"150\">{safe}</text></svg>\n"
    )
    .into_bytes()
}
